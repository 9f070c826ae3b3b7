"""What a terminal shows while a sweep runs: which jobs run, on which devices, for how long."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from trainer.sweep.job import Job

EVERY = 0.5
"""Seconds between two redraws."""


class StatusTable:
    """A table below the lines that the sweep prints; shows nothing without a terminal, or where not `live`."""

    def __init__(self, jobs: Sequence[Job], live: bool) -> None:
        self.jobs, self._next = jobs, 0.0
        self._live = _live_display() if live and sys.stdout.isatty() else None

    def __enter__(self) -> "StatusTable":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._live:
            self._live.update("", refresh=True)
            self._live.stop()

    def refresh(self) -> None:
        """Draw the table again, if it is time."""
        if self._live and time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            self._live.update(_table(self.jobs), refresh=True)


def format_counts(jobs: Sequence[Job]) -> str:
    """How many jobs are in which state: `1 of 4 completed, 1 failed, 2 running`."""
    states = Counter(job.status for job in jobs)
    others = [f"{states[s]} {s}" for s in ("pruned", "failed", "interrupted", "running", "waiting") if states[s]]
    return ", ".join([f"{states['completed']} of {len(jobs)} completed", *others])


def _live_display() -> Any:
    from rich.console import Console
    from rich.live import Live

    console = Console(markup=False, highlight=False)
    return Live(console=console, auto_refresh=False, redirect_stderr=sys.stderr.isatty())


def _table(jobs: Sequence[Job]) -> Any:
    from rich.table import Table

    table = Table("running", "overrides", "devices", "seconds", title=format_counts(jobs), title_justify="left")
    for job in (job for job in jobs if job.status == "running"):
        table.add_row(str(job.number), job.label, " ".join(job.devices) or "cpu", f"{job.seconds:.0f}")
    return table
