"""`trainer.max_time`: a run saves and ends before its time is over. Standard library only."""

import math
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.files.process import process_start
from trainer.lr import ConfigError

LEAVING, LONGEST_LEAVING = 5.0, 20.0
"""Seconds between the save and the end of the process: the first, or a third of what its start took, up to the second.

A process that starts slowly, on a busy machine, ends slowly, too.
"""
BYTES_PER_SECOND = 50e6
"""The speed of a save that none has been measured yet for."""
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_FORM = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in _UNITS))


def seconds_of(name: str, text: object) -> float:
    """The seconds in `11h30m`, `90m`, `3600s` or `1d12h`: numbers with d, h, m and s, the largest unit first.

    >>> seconds_of("trainer.max_time", "11h30m")
    41400.0

    Raises:
        ConfigError: `text` has another form, or is no time at all.
    """
    match = _FORM.fullmatch(text) if isinstance(text, str) else None
    given = match.groups() if match else ()
    seconds = sum(float(number) * size for number, size in zip(given, _UNITS.values()) if number)
    if not seconds:
        raise ConfigError(f"{name}={text!r} is not a time: write 11h30m, 90m, 3600s or 1d12h, or null for no limit.")
    return seconds


_begun: list[float] = []


def count_from_now() -> None:
    """Have `process_age` count from now on, in a process that makes several runs."""
    _begun[:] = [time.monotonic()]


def process_age() -> float:
    """Seconds since this process started, or since `count_from_now`; 0 where the system does not say."""
    if _begun:
        return time.monotonic() - _begun[0]
    with suppress(OSError, ValueError, IndexError):
        up = float(Path("/proc/uptime").read_text().split()[0])
        if started := process_start(os.getpid()):
            return max(0.0, up - started / os.sysconf("SC_CLK_TCK"))
    return 0.0


class TimeLimit:
    """Says when to stop, so that the run has ended after `seconds`, counted from `begun` on the monotonic clock.

    It leaves time for the longest stretch so far between two questions, a save, and the end of the process. The first
    stretch, in which a model may be compiled, counts only until there is another.
    """

    def __init__(self, seconds: float = math.inf, begun: float = 0.0) -> None:
        self.end, self._begun, self._leaving = begun + seconds, begun, LEAVING
        self.finite = math.isfinite(seconds)
        self._asked: float | None = None
        self._first, self._longest, self._save = 0.0, 0.0, 0.0
        self._measured = False

    def is_up(self) -> bool:
        """Whether the run must stop now; the loop asks between two chunks of updates, and two batches elsewhere."""
        now = time.monotonic()
        if self._asked is None:
            self._leaving = min(max(LEAVING, (now - self._begun) / 3), LONGEST_LEAVING)
        else:
            stretch = now - self._asked
            self._longest = max(self._longest, stretch) if self._first else 0.0
            self._first = self._first or stretch
        self._asked = now
        return now + (self._longest or self._first) + self._save + self._leaving >= self.end

    def expect_save(self, size: int) -> None:
        """Assume the time of a save of `size` bytes, until one is measured."""
        self._save = size / BYTES_PER_SECOND

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure a save."""
        begun = time.monotonic()
        yield
        seconds = time.monotonic() - begun
        self._save = max(self._save, seconds) if self._measured else seconds
        self._measured = True
