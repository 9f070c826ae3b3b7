"""What a sweep reports of its jobs: a line for each that ends, a table at the end, and `sweep.json`."""

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.cli.messages import RunFailed
from trainer.files.atomic import write_text
from trainer.log.validations import main_scores
from trainer.sweep.job import Job

SUMMARY = "sweep.json"


class SweepFailed(RunFailed):
    """Jobs of a sweep failed. Each has given its reason already, so its message is one line."""


def set_labels(jobs: Sequence[Job]) -> None:
    """Label each job with the overrides that it does not share with all the others."""
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    for job in jobs:
        job.label = " ".join(override for override in job.overrides if override not in shared)


def print_outcome(job: Job) -> None:
    """Print one line: on stdout for a job that is completed or pruned, else on stderr."""
    if job.status == "completed":
        print(f"job {job.number} completed in {job.seconds:.1f} s", flush=True)
    elif job.status == "pruned":
        print(f"job {job.number} {job.error}", flush=True)
    else:
        print(f"job {job.number} {job.status}: {job.label}: {job.error}", file=sys.stderr, flush=True)


def sweep_failed(jobs: Sequence[Job], folder: Path) -> SweepFailed:
    """The error that says how many jobs failed, and which; their reasons were printed as they ended."""
    failed = [job for job in jobs if job.status == "failed"]
    cut = [job for job in jobs if job.status == "interrupted"]
    if cut and not failed:
        names = ", ".join(f"job {job.number} {job.label}".rstrip() for job in cut)
        return SweepFailed(
            f"{len(cut)} of {len(jobs)} jobs were interrupted: {names}; go on with resume=auto; see {folder / SUMMARY}"
        )
    names = ", ".join(f"job {job.number} {job.label}".rstrip() for job in failed)
    others = sum(job.status not in ("completed", "pruned") for job in jobs) - len(failed)
    unfinished = f", {others} more did not run to their end" if others else ""
    return SweepFailed(f"{len(failed)} of {len(jobs)} jobs failed: {names}{unfinished}; see {folder / SUMMARY}")


def write_summary(
    jobs: Sequence[Job], folder: Path, later: Iterable[dict[str, Any]] = (), search: Mapping[str, Any] | None = None
) -> None:
    """Replace `sweep.json` in one step, so that no reader sees a part of it.

    `later`: records of jobs that this start has not reached yet, kept as they were. `search`: what a search adds.
    """
    records = sorted([*(job.record() for job in jobs), *later], key=lambda record: record["number"])
    write_text(folder / SUMMARY, json.dumps({"jobs": records, **(search or {})}, indent=2) + "\n")


def print_table(jobs: Sequence[Job], folder: Path) -> None:
    """Print a table of all jobs: number, overrides, status, metrics, folder."""
    from rich.console import Console
    from rich.table import Table

    table = Table("job", "overrides", "status", "metrics", "folder")
    for job in jobs:
        metrics = main_scores(job.result.get("metrics", {}))
        values = "\n".join(f"{name} {value:.5g}" for name, value in metrics.items())
        table.add_row(str(job.number), job.label, job.status, values, job.folder.name)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    report = shlex.join(["cadence", "report", str(folder)])
    print(f"folders and all values: {folder / SUMMARY}; a page: {report}", flush=True)
