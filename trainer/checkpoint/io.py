"""Checkpoints as files: written under a temporary name and renamed, plain containers only, read without running code.

Each checkpoint carries the number of its format, the version of Cadence that wrote it, and the git commit where there
is one, as `format`, `version` and `commit` of its `cadence` entry. The format number rises whenever an older Cadence
could not read the new content correctly, or a newer one the old content. A checkpoint of another format, older or
newer, is refused with one line that names the version that wrote it: nothing is converted.
"""

import copy
import os
import re
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO

from trainer.cli.version import version
from trainer.lr import ConfigError

BEST = "best.ckpt"
FORMAT = 1
_NAME = re.compile(r"update-(\d+)\.ckpt")


class AtomicCheckpointIO(CheckpointIO):
    """Saves to a temporary file in the same folder, syncs it and renames it: a file under its name is complete.

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
        path, temporary = Path(path), _temporary(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)

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


def read(path: str | Path, name: str = "resume.path") -> dict[str, Any]:
    """A checkpoint on the CPU, as plain containers; the tensors are mapped from the file, and read when used.

    `name` is what messages call the path.

    Raises:
        ConfigError: the file cannot be read, is no checkpoint of Cadence, or is one of another format.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        why = "it is damaged, or holds more than plain data"
        raise ConfigError(f"{name}={path} is not a checkpoint that can be read: {why}. Name another.") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("cadence"), dict):
        raise ConfigError(f"{name}={path} was not written by this framework: it has no clock. Name another.")
    _check_format(f"{name}={path}", checkpoint["cadence"])
    return checkpoint


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
    temporary = _temporary(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(source.read_bytes())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def checkpoint_path(folder: Path, update: int) -> Path:
    """The file of the checkpoint after `update` updates."""
    return folder / f"update-{update:08d}.ckpt"


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of single updates in a folder, the oldest first, by the number in their name."""
    found = {int(match[1]): path for path in folder.glob("*.ckpt") if (match := _NAME.fullmatch(path.name))}
    return [found[update] for update in sorted(found)]


def _temporary(path: str | Path) -> Path:
    """A name beside `path` that no other process of this machine writes to."""
    path = Path(path)
    return path.with_name(f".{path.name}.{os.getpid()}")


def _sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
