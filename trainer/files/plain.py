"""Reads regular files only: a pipe or a device under the name of a file would never end. Standard library only."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import IO, Any


def check_regular(path: Path) -> None:
    """Raise OSError where there is no regular file at `path`, or behind its link."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_bytes(path: Path) -> bytes:
    """The content of a regular file. Raises OSError."""
    check_regular(path)
    return path.read_bytes()


def read_text(path: Path) -> str:
    """The same as text in UTF-8. Raises OSError, and UnicodeDecodeError, a ValueError."""
    check_regular(path)
    return path.read_text(encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """What a file of JSON holds; empty where it is not there, cannot be read, or holds no names with values."""
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def open_own(path: Path, flags: int = os.O_RDWR) -> int:
    """Open a file that this run writes, and make it where it is missing; a link is not followed. Raises OSError."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def appended(path: Path) -> IO[bytes]:
    """Such a file, open to read and to append. Raises OSError."""
    return os.fdopen(open_own(path, os.O_RDWR | os.O_APPEND), "ab+")
