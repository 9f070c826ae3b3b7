"""What a sweep reports of its jobs: a line for each that ends, a table at the end, and `sweep.json`."""

import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.cli.messages import RunFailed
from trainer.cli.streams import short_numbers
from trainer.files.atomic import write_text
from trainer.log.validations import main_scores
from trainer.sweep.job import Job

SUMMARY = "sweep.json"


class SweepFailed(RunFailed):
    """Jobs of a sweep failed. Each has given its reason already, so its message is one line."""


def set_labels(jobs: Sequence[Job]) -> None:
    """Label each job with the overrides that it does not share with all the others."""
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    labels = [" ".join(override for override in job.overrides if override not in shared) for job in jobs]
    for job, label in zip(jobs, short_numbers(labels)):
        job.label = label


def print_outcome(job: Job) -> None:
    """Print one line: on stdout for a job that is completed or pruned, else on stderr."""
    if job.status == "completed":
        best = job.result.get("best") or {}
        score = "" if best.get("value") is None else f"{best['metric']} {best['value']:.5g}"
        said = ", ".join(filter(None, [f"job {job.number} completed in {job.seconds:.1f} s", job.label, score]))
        print(said, flush=True)
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
    """Print a line for each job: number, overrides, status, and the scores that fit, those of the best job first."""
    from rich.console import Console
    from rich.table import Column, Table

    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 160
    ranked, best = _ranked(jobs)
    scores = {job.number: main_scores(job.result.get("metrics", {})) for job in jobs}
    room = console.width - len("│ job │  │ completed, best │")
    shown = _fitting(scores.values(), best, room - min(40, max((len(job.label) for job in jobs), default=0)))
    room -= sum(map(_width, shown))
    overrides = Column("overrides", no_wrap=True, overflow="ellipsis", max_width=max(room, len("overrides")))
    table = Table("job", overrides, *(Column(name, no_wrap=True) for name in ("status", *shown)))
    for job in ranked:
        found = (scores[job.number].get(name) for name in shown)
        values = ["" if value is None else f"{value:.5g}" for value in found]
        status = f"{job.status}, best" if best and job is ranked[0] else job.status
        table.add_row(str(job.number), job.label, status, *values)
    console.print(table)
    place = shlex.quote(str(folder))
    print(f"folders and all values: {folder / SUMMARY}; a page: cadence report {place}")
    print(f"TensorBoard, each job named by its overrides: cadence runs tensorboard {place}", flush=True)


def _ranked(jobs: Sequence[Job]) -> tuple[list[Job], str | None]:
    """The jobs, the best first, and the score that decides; in their own order where they have none in common."""
    found = {job.number: job.result.get("best") or {} for job in jobs}
    scored = {number: best for number, best in found.items() if best.get("value") is not None}
    kinds = {(best.get("metric"), best.get("mode")) for best in scored.values()}
    if len(kinds) != 1 or len(scored) < 2:
        return list(jobs), None
    ((metric, mode),) = kinds
    sign = -1 if mode == "max" else 1
    without = [job for job in jobs if job.number not in scored]
    ranked = sorted((job for job in jobs if job.number in scored), key=lambda job: sign * scored[job.number]["value"])
    return [*ranked, *without], metric


def _fitting(scores: Iterable[Mapping[str, Any]], first: str | None, room: int) -> list[str]:
    """The names of scores whose columns fit into `room` characters, the deciding one first, which is always there."""
    names = list(dict.fromkeys(name for one in scores for name in one))
    names.sort(key=lambda name: (name != first, name.rpartition("/")[2] != (first or "").rpartition("/")[2]))
    shown: list[str] = []
    for name in names:
        room -= _width(name)
        if room >= 0 or name == first:
            shown.append(name)
    return shown


def _width(name: str) -> int:
    """The characters that the column of a score takes, with its border."""
    return max(len(name), len("-0.00012345")) + len("│  ")
