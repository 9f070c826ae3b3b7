"""The jobs of a sweep that start from a snapshot of a longer one: when each may start, and what it has saved."""

import json
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import Quote, QuotedString

from trainer.checkpoint.snapshots import has_checkpoint, snapshot_path
from trainer.sweep.job import Job


class WaitingForPrefix:
    """The jobs of a batch that wait for the snapshot of their source."""

    def __init__(self, batch: Sequence[Job]) -> None:
        self.jobs = [job for job in batch if job.prefix is not None and job.status != "completed"]

    def ready(self) -> Iterator[Job]:
        """The jobs that need not wait any longer: they may start, or are stopped because their source has failed."""
        for job in list(self.jobs):
            if self._is_ready(job):
                self.jobs.remove(job)
                yield job

    def _is_ready(self, job: Job) -> bool:
        assert job.prefix is not None
        source, updates = job.prefix.source, job.prefix.updates
        snapshot = snapshot_path(source.folder / "checkpoints", updates)
        if snapshot.exists() or has_checkpoint(job.folder):
            quoted = QuotedString(text=str(snapshot), quote=Quote.single).with_quotes()
            job.command.append(f"resume.snapshot={quoted}")
        elif source.status == "completed":
            print(f"job {job.number} runs alone: job {source.number} ended without a snapshot {snapshot}", flush=True)
        elif source.status in ("failed", "interrupted", "pruned"):
            job.status = "interrupted"
            job.error = f"not run: job {source.number}, which it starts from, {source.status} before update {updates}"
        else:
            return False
        return True


def format_saving(jobs: Sequence[Job]) -> str:
    """How many updates the completed jobs asked for, and how many were trained for them."""
    asked = shared = 0
    for job in (job for job in jobs if job.status == "completed"):
        try:
            plan = json.loads((job.folder / "plan.json").read_text(encoding="utf-8"))
            asked += plan["total_updates"]
            shared += sum(change["update"] for change in plan["changes"] if "of" in change)
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return f"shared prefix: {asked:,} updates asked, {asked - shared:,} trained"
