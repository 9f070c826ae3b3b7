"""A dry run of a sweep: that of each job, one after the other, with a line for each. No folder is made."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from trainer.cli.run_id import OF_RANK_ZERO, VARIABLE
from trainer.cli.streams import shown
from trainer.distributed.launch.requeue import NO_REQUEUE
from trainer.sweep.job import Job
from trainer.sweep.spawn import Process, Spawn
from trainer.sweep.summary import SweepFailed, set_labels
from trainer.sweep.watchdog import TICK

READY = "ready:"
"""How the line begins by which a dry run sums up."""


def check_jobs(jobs: Sequence[Job], spawn: Spawn) -> list[JobReturn]:
    """Print for each job what it would train, or why it is refused. Raises `SweepFailed` where one is refused."""
    set_labels(jobs)
    refused: list[Job] = []
    with tempfile.TemporaryDirectory() as place:
        for job in jobs:
            log = Path(place, f"{job.number}.log")
            log.touch()
            code = _code(spawn(job.command, _environment(job), log))
            lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
            said = next((line for line in reversed(lines) if code or line.startswith(READY)), f"exit code {code}")
            name = f"job {job.number} {job.label}".rstrip()
            if code:
                refused.append(job)
                print(shown(f"{name}: refused: {said}"), file=sys.stderr, flush=True)
            else:
                print(shown(f"{name}: {said}"), flush=True)
    if refused:
        names = ", ".join(f"job {job.number} {job.label}".rstrip() for job in refused)
        raise SweepFailed(f"{len(refused)} of {len(jobs)} jobs would be refused: {names}")
    return [JobReturn(job.overrides, status=JobStatus.COMPLETED) for job in jobs]


def _environment(job: Job) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != OF_RANK_ZERO}
    return kept | {VARIABLE: f"{job.folder.parent.name}-{job.number}", NO_REQUEUE: "1", "PYTHONUNBUFFERED": "1"}


def _code(process: Process) -> int:
    """The exit code of a job that has ended; it ends with this process."""
    try:
        while (code := process.poll()) is None:
            time.sleep(TICK)
        return code
    finally:
        if process.alive():
            process.send(signal.SIGKILL)
