"""Files that are replaced at once: written under a temporary name beside their place, then renamed.

A reader finds the old content or the new, never a part of it. The temporary name `.tmp-PID-START@HOST@NAME` says which
process writes it. What a killed process has left is removed at the next start in its folder, and by the next write to
it. Standard library only.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.files.process import process_start

_TEMPORARY = re.compile(r"\.tmp-(?P<pid>\d+)-(?P<start>\d+)@(?P<host>[^@]+)@.+")


@contextmanager
def replaced(path: Path, durable: bool = False) -> Iterator[Path]:
    """A temporary name to write to; what is there at the end takes the place of `path`, except after an error.

    `durable`: the content and the new name survive a loss of power, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_orphans(path.parent)
    temporary = path.with_name(f".tmp-{_owner()}@{path.name}")
    try:
        yield temporary
        if durable:
            _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by a file with this text."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_orphans(folder: Path, owned: bool = False) -> None:
    """Remove the temporary files in `folder` whose process has ended.

    Whether a process of another host has ended cannot be seen from here: its files stay, unless the folder is `owned`
    by this run, so that nobody else may write there.
    """
    with suppress(OSError):
        for path in folder.iterdir():
            found = _TEMPORARY.fullmatch(path.name)
            if found is not None and not _is_living(found, owned):
                with suppress(OSError):
                    path.unlink()


def _owner() -> str:
    return f"{os.getpid()}-{process_start(os.getpid())}@{_host()}"


def _host() -> str:
    return socket.gethostname().replace("@", "_").replace("/", "_") or "localhost"


def _is_living(name: re.Match[str], owned: bool) -> bool:
    """Whether the process in a temporary name still runs: a number is used again, so its start must fit, too."""
    if name["host"] != _host():
        return not owned
    pid, started = int(name["pid"]), int(name["start"])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return process_start(pid) == started


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
