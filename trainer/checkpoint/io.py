"""Checkpoints as files: replaced at once, verified on every read, plain containers only, read without running code.

A checkpoint ends with its length and a checksum of all its bytes (see `trainer.files.checksums`).

Each checkpoint carries the number of its format, the version of Cadence that wrote it, and the git commit where there
is one, as `format`, `version` and `commit` of its `cadence` entry. The format number rises whenever an older Cadence
could not read the new content correctly, or a newer one the old content. A checkpoint of another format, older or
newer, is refused with one line that names the version that wrote it: nothing is converted.
"""

import copy
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from trainer.checkpoint.saving import telling_why
from trainer.cli.version import version
from trainer.files.atomic import replaced
from trainer.files.checksums import ChecksumWriter, Damaged, has_checksum, verify
from trainer.lr import ConfigError

BEST = "best.ckpt"
FORMAT = 2
_NAME = re.compile(r"update-(\d+)\.ckpt")


class AtomicCheckpointIO(CheckpointIO):
    """Saves under a temporary name with a checksum, syncs and renames: a file under its name is complete.

    `preload` hands over a checkpoint that has been read already: Lightning then loads it without reading the file.
    """

    def __init__(self) -> None:
        self._preloaded: dict[Path, dict[str, Any]] = {}

    def preload(self, path: str | Path, checkpoint: dict[str, Any]) -> None:
        """Have the next `load_checkpoint(path)` return this checkpoint, which `read(path)` gave."""
        self._preloaded = {Path(path): checkpoint}

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint with its format, version and commit; `checkpoint` itself stays as it is."""
        running = version()
        written_by = {"format": FORMAT, "version": running["cadence"], "commit": running["commit"]}
        content = {**checkpoint, "cadence": {**checkpoint["cadence"], **written_by}}
        with (
            telling_why(Path(path)),
            replaced(Path(path), durable=True) as temporary,
            temporary.open("wb") as file,
        ):
            checked = ChecksumWriter(file)
            torch.save(content, checked)  # type: ignore[arg-type]
            checked.finish()

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """The checkpoint at `path`, for a run to go on from.

        The weights are copied into the net. All other tensors may stay in use while the run trains, so they are copied
        out of the file, which may be removed meanwhile.
        """
        checkpoint = self._preloaded.pop(Path(path), None) or read(path)
        return {key: value if key == "state_dict" else copy.deepcopy(value) for key, value in checkpoint.items()}

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)


class DamagedCheckpoint(ConfigError):
    """A checkpoint is not what was written; `why` says how that shows."""

    def __init__(self, place: str, why: str, instead: str) -> None:
        super().__init__(f"{place} is damaged: {why}. {instead}")
        self.why = why


def read(path: str | Path, name: str = "resume.path") -> dict[str, Any]:
    """A verified checkpoint on the CPU, as plain containers; the tensors are mapped from the file, and read when used.

    `name` is what messages call the path.

    Raises:
        DamagedCheckpoint: the bytes of the file are not those that were written.
        ConfigError: the file is not there or cannot be read, is no checkpoint of Cadence, or is one of another format.
    """
    path, place = Path(path), f"{name}={path}"
    try:
        content = _load_verified(path)
    except Damaged as damage:
        _refuse_others(place, path)
        raise DamagedCheckpoint(place, str(damage), _instead_of(path)) from damage
    except FileNotFoundError as error:
        raise ConfigError(f"{place} does not exist: name a checkpoint that is there.") from error
    except OSError as error:
        raise ConfigError(f"{place} cannot be read ({error.strerror}): correct that, or name another.") from error
    except Exception as error:
        why = "it holds more than plain data"
        raise ConfigError(f"{place} is not a checkpoint that can be read: {why}. Name another.") from error
    return _of_this_format(place, content)


def is_good(path: Path) -> bool:
    """Whether the file is there, and its bytes are those that were written."""
    try:
        verify(path)
    except (OSError, Damaged):
        return False
    return True


def _load_verified(path: Path) -> Any:
    """The content of a file, read again where another has taken its place between the check and the reading."""
    for _ in range(5):
        before = path.stat()
        verify(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        after = path.stat()
        if (before.st_ino, before.st_size, before.st_mtime_ns) == (after.st_ino, after.st_size, after.st_mtime_ns):
            return content
    raise Damaged("it is replaced again and again while it is read")


def _refuse_others(place: str, path: Path) -> None:
    """Refuse a file without a checksum as what it is: that of another program, or of another format."""
    if has_checksum(path) or not path.is_file():
        return
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # then it is damaged, or nothing that torch has written
        return
    _of_this_format(place, content)


def _instead_of(path: Path) -> str:
    """What to take for a damaged checkpoint."""
    good = next((other for other in good_checkpoints(path.parent) if other.name != path.name), None)
    return "There is no good one beside it." if good is None else f"The newest good one beside it is {good}."


def _of_this_format(place: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or not isinstance(content.get("cadence"), dict):
        raise ConfigError(f"{place} was not written by this framework: it has no clock. Name another.")
    _check_format(place, content["cadence"])
    return content


def _check_format(place: str, saved: dict[str, Any]) -> None:
    found = saved.get("format")
    if found == FORMAT:
        return
    has = "has no checkpoint format number" if found is None else f"has checkpoint format {found}"
    writer = "a newer Cadence" if isinstance(found, int) and found > FORMAT else "an older Cadence"
    writer += f", {saved['version']}" if "version" in saved else ""
    raise ConfigError(
        f"{place} {has}, and this Cadence reads format {FORMAT}: go on with the version that wrote it "
        f"({writer}), or start a new run."
    )


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint file byte by byte; `target` is replaced at once."""
    with replaced(target, durable=True) as temporary:
        shutil.copyfile(source, temporary)


def checkpoint_path(folder: Path, update: int) -> Path:
    """The file of the checkpoint after `update` updates."""
    return folder / f"update-{update:08d}.ckpt"


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of single updates in a folder, the oldest first, by the number in their name."""
    found = {int(match[1]): path for path in folder.glob("*.ckpt") if (match := _NAME.fullmatch(path.name))}
    return [found[update] for update in sorted(found)]


def good_checkpoints(folder: Path) -> Iterator[Path]:
    """Those of them that are not damaged, the newest first; each is read when it is asked for."""
    return filter(is_good, reversed(checkpoints_in(folder)))
