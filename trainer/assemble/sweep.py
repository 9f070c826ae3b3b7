"""What a sweep tells of its jobs: a line for each as it ends, a table, and `sweep.json`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.assemble.job import Job

SUMMARY = "sweep.json"


class SweepFailed(RuntimeError):
    """Jobs of a sweep failed; each of them has told why already, so one line is all there is to say."""


def tell(job: Job) -> None:
    """One line: a job that is done on stdout, one that is not on stderr."""
    if job.status == "completed":
        print(f"job {job.number} completed in {job.seconds:.1f} s", flush=True)
    else:
        line = f"job {job.number} {job.status}: {' '.join(job.overrides)}: {job.error}"
        print(line, file=sys.stderr, flush=True)


def failure(jobs: Sequence[Job], folder: Path) -> SweepFailed:
    """How many jobs of the sweep failed, and which, and why."""
    failed = [job for job in jobs if job.status != "completed"]
    names = "; ".join(f"job {job.number} {' '.join(job.overrides)} ({job.error})" for job in failed)
    return SweepFailed(f"{len(failed)} of {len(jobs)} jobs failed: {names}; see {folder / SUMMARY}")


def write(jobs: Sequence[Job], folder: Path) -> None:
    """Replace `sweep.json` at once, so that a reader never meets half of it."""
    draft = folder / f".{SUMMARY}"
    draft.write_text(json.dumps({"jobs": [job.record() for job in jobs]}, indent=2) + "\n")
    draft.replace(folder / SUMMARY)


def show(jobs: Sequence[Job], folder: Path) -> None:
    """A table of all jobs on stdout: number, overrides, status, metrics, folder."""
    from rich.console import Console
    from rich.table import Table

    table = Table("job", "overrides", "status", "metrics", "folder")
    for job in jobs:
        metrics = job.result.get("metrics", {})
        values = "\n".join(f"{name} {value:.5g}" for name, value in metrics.items())
        table.add_row(str(job.number), "\n".join(job.overrides), job.status, values, job.folder.name)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    print(f"folders and all values: {folder / SUMMARY}", flush=True)
