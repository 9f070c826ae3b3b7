"""What the system says of a process of this machine by its number. Standard library only."""

import os
from pathlib import Path


def process_state(pid: int) -> str:
    """The state of a process of this machine, as R, S or T; empty where the system does not say."""
    fields = _fields(pid)
    return fields[0] if fields else ""


def process_runs(pid: int) -> bool:
    """Whether a process of this machine runs; one that is dead and that nobody has reaped does not.

    Where there is no /proc, such a one counts too.
    """
    if state := process_state(pid):
        return state not in "ZX"
    if Path("/proc/self/stat").exists():
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def process_start(pid: int) -> int:
    """When a process was started, in clock ticks since the boot; 0 where the system does not say."""
    try:
        return int(_fields(pid)[19])
    except (ValueError, IndexError):
        return 0


def _fields(pid: int) -> list[str]:
    """What /proc says of a process, from its state on: the name before it may have spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
