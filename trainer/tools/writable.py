"""Files of a command: whether they can be written, and writing them whole."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from trainer.files.atomic import replaced
from trainer.lr import ConfigError


def check_writable(stem: Path) -> None:
    """Refuse a place that cannot be written, before anything is trained."""
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for path in (Path(f"{stem}.png"), Path(f"{stem}.json")):
            new = not path.exists()
            with path.open("a"):
                pass
            if new:
                path.unlink()
    except OSError as error:
        raise ConfigError(f"--out={stem} cannot be written ({error.strerror}): name another place.") from error


def check_new_file(path: Path, suffixes: Sequence[str], force: bool) -> None:
    """Refuse a file of another format, one that is there unless `force` is set, and a folder that is not writable."""
    if path.suffix not in suffixes:
        raise ConfigError(f"{path} has no suffix of a format: choose one of {', '.join(suffixes)}.")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists: name another file, or write over it with force (--force).")
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}.")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written: the folder {path.parent} is read-only.")


def write_new_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file beside its place, and put it there when it is whole. ConfigError where it cannot be."""
    try:
        with replaced(path) as aside:
            write(aside)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): choose another file.") from error
