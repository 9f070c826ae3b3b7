"""A small process that outlives the driver of a sweep, and ends its jobs if the driver was killed.

The driver holds the other end of a pipe and writes to it which process groups are its jobs. The pipe closes when the
driver ends, whatever the cause. Then the watchdog sends SIGTERM to the groups that are left, and SIGKILL after `GRACE`
seconds. This file is also the program of that process. Standard library only.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

GRACE = 30.0
"""Seconds from the signal that ends a job to the SIGKILL for what is left of it."""
TICK = 0.05


class Watchdog:
    """The driver's end of the pipe; `keep` are open files that the watchdog holds until the last job has ended."""

    def __init__(self, keep: Iterable[int] = ()) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=tuple(keep),
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        """Note that a job has started."""
        self._write(f"+{group}\n")

    def remove(self, group: int) -> None:
        """Note that a job has ended, with all its processes."""
        self._write(f"-{group}\n")

    def close(self) -> None:
        """End the watchdog: no job is left."""
        with suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate(timeout=2 * GRACE)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the watchdog was killed: the sweep goes on without it
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


def signal_group(group: int, signum: int) -> bool:
    """Send a signal; whether the process group exists. Dead processes that nobody has reaped still exist."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signum)
        return True
    return False


def group_runs(group: int) -> bool:
    """Whether a process of the group runs; where there is no /proc, dead processes that nobody has reaped count too."""
    if not signal_group(group, 0) or not Path("/proc/self/stat").exists():
        return signal_group(group, 0)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has gone meanwhile
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "ZX":
                return True
    return False


def end(groups: set[int], grace: float) -> None:
    """Send SIGTERM to all groups, and SIGKILL to those that still run `grace` seconds later."""
    until = time.monotonic() + grace
    left = {group for group in groups if signal_group(group, signal.SIGTERM)}
    while left and time.monotonic() < until:
        time.sleep(TICK)
        left = {group for group in left if group_runs(group)}
    for group in left:
        signal_group(group, signal.SIGKILL)


def main() -> None:
    """Read from stdin which groups run, until it closes; then end those that are left."""
    groups: set[int] = set()
    for line in sys.stdin:
        (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
    end(groups, GRACE)


if __name__ == "__main__":
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # it ends when its driver does
    main()
