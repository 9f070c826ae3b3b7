"""What a sweep tells of its jobs: a line for each as it ends, a table, and `sweep.json`."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.cli.messages import RunFailed
from trainer.sweep.job import Job

SUMMARY = "sweep.json"


class SweepFailed(RunFailed):
    """Jobs of a sweep failed; each of them has told why already, so one line is all there is to say."""


def label(jobs: Sequence[Job]) -> None:
    """Label each job with the overrides that it does not share with all the others."""
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    for job in jobs:
        job.label = " ".join(word for word in job.overrides if word not in shared)


def tell(job: Job) -> None:
    """One line: a job that is done on stdout, one that is not on stderr."""
    if job.status == "completed":
        print(f"job {job.number} completed in {job.seconds:.1f} s", flush=True)
    elif job.status == "pruned":
        print(f"job {job.number} {job.error}", flush=True)
    else:
        print(f"job {job.number} {job.status}: {job.label}: {job.error}", file=sys.stderr, flush=True)


def failure(jobs: Sequence[Job], folder: Path) -> SweepFailed:
    """How many jobs of the sweep failed, and which; why has been told as they ended."""
    failed = [job for job in jobs if job.status == "failed"]
    names = ", ".join(f"job {job.number} {job.label}".rstrip() for job in failed)
    rest = sum(job.status not in ("completed", "pruned") for job in jobs) - len(failed)
    unfinished = f", {rest} more did not run to their end" if rest else ""
    return SweepFailed(f"{len(failed)} of {len(jobs)} jobs failed: {names}{unfinished}; see {folder / SUMMARY}")


def write(
    jobs: Sequence[Job], folder: Path, later: Iterable[dict[str, Any]] = (), about: Mapping[str, Any] | None = None
) -> None:
    """Replace `sweep.json` at once, so that a reader never meets half of it.

    `later` are records kept as they were, `about` is what a search tells of itself.
    """
    records = sorted([*(job.record() for job in jobs), *later], key=lambda record: record["number"])
    draft = folder / f".{SUMMARY}"
    draft.write_text(json.dumps({"jobs": records, **(about or {})}, indent=2) + "\n")
    draft.replace(folder / SUMMARY)


def show(jobs: Sequence[Job], folder: Path) -> None:
    """A table of all jobs on stdout: number, overrides, status, metrics, folder."""
    from rich.console import Console
    from rich.table import Table

    table = Table("job", "overrides", "status", "metrics", "folder")
    for job in jobs:
        metrics = job.result.get("metrics", {})
        values = "\n".join(f"{name} {value:.5g}" for name, value in metrics.items())
        table.add_row(str(job.number), job.label, job.status, values, job.folder.name)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    print(f"folders and all values: {folder / SUMMARY}; a page: python scripts/report.py {folder}", flush=True)
