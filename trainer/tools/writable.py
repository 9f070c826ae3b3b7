"""Files of a command: whether they can be written, and writing them whole."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from trainer.files.atomic import replaced
from trainer.lr import ConfigError

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", "|", "%")
"""First characters with which spreadsheets begin what they compute or run."""


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


def plain_cell(value: Any) -> Any:
    """A cell of a CSV that no spreadsheet runs: a text that one would take for a formula begins with an apostrophe.

    >>> [plain_cell(value) for value in ("=1+1", " =1+1", "-1e-3", -1e-3, "@x", "a=b", None)]
    ["'=1+1", "' =1+1", '-1e-3', -0.001, "'@x", 'a=b', None]
    """
    if not isinstance(value, str):
        return value
    if "\r" in value:  # where a carriage return is not quoted, a new row begins
        return plain_cell(value.replace("\r", " ").strip())
    if not value.startswith(FORMULAS) and not value.strip().startswith(FORMULAS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def save_numbers(stem: Path, text: str, figure: Any) -> str:
    """Write numbers and a picture, each whole: an earlier file stays where one cannot be written. Their paths."""
    write_new_file(Path(f"{stem}.json"), lambda path: path.write_text(f"{text}\n", encoding="utf-8"))
    write_new_file(Path(f"{stem}.png"), partial(figure.savefig, dpi=120))
    return f"{stem}.png  {stem}.json"


def write_new_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file beside its place, and put it there when it is whole. ConfigError where it cannot be.

    What lies in /dev, such as /dev/stderr, is written to and stays what it is.
    """
    try:
        with nullcontext(path) if str(path.parent) in ("/dev", "/dev/fd") else replaced(path) as place:
            write(place)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}): choose another file.") from error
