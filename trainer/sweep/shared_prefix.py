"""Jobs of a sweep that differ in their length only: the shorter ones start from a snapshot of the longest.

Data, augmentation and dropout are functions of (seed, update). So the shorter run and the longer one are the same to
the bit until their planned curves differ, and this part is trained once. It is the shared prefix of the shorter job;
the longer job is its source.
"""

import json
from collections.abc import Iterator, Sequence

from trainer.config.settings import Settings
from trainer.lr import ConfigError
from trainer.resume.changes import flat
from trainer.sweep.first_difference import LENGTH, Planned, shared_updates
from trainer.sweep.job import Job, SharedPrefix

SWITCH = "hydra.launcher.shared_prefix=true"


def share(batch: Sequence[Job], settings: Sequence[Settings]) -> None:
    """Let each job start from the longest of those that differ from it in their length only.

    Raises:
        ConfigError: no two jobs share anything, or a job sets where it starts from.
    """
    by_config: dict[str, list[Planned]] = {}
    for job, its_own in zip(batch, settings):
        _check(its_own)
        by_config.setdefault(_without_length(its_own), []).append(Planned(job, its_own))
    reasons = [line for alike in by_config.values() if len(alike) > 1 for line in _share_among(alike)]
    if not any(job.prefix for job in batch):
        why = reasons[0] if reasons else f"no two jobs differ in {LENGTH} only"
        raise ConfigError(f"{SWITCH}: {why}")
    for job in batch:
        if job.prefix is not None:
            print(f"job {job.number} starts from job {job.prefix.source.number} after update {job.prefix.updates}")
    print(*reasons, sep="\n", end="\n" if reasons else "", flush=True)


def _share_among(alike: Sequence[Planned]) -> Iterator[str]:
    """Set the prefixes of jobs that differ in their length only; a line for each job that has none."""
    source = max(alike, key=lambda planned: planned.length.total)
    snapshots = []
    for planned in alike:
        if planned is source:
            continue
        updates, why = shared_updates(source, planned)
        if updates:
            planned.job.prefix = SharedPrefix(source.job, updates)
            snapshots.append(updates)
            if planned.settings.resume.path != "auto":
                planned.job.command.append("resume.path=auto")
        else:
            yield f"jobs {planned.job.number} and {source.job.number} share nothing, {why}"
    if snapshots:
        source.job.command.append(f"trainer.snapshots={sorted(set(snapshots))}".replace(" ", ""))


def _check(settings: Settings) -> None:
    resume, snapshots = settings.resume, settings.trainer.snapshots
    if resume.path not in (None, "none", "auto") or resume.snapshot is not None or resume.policy is not None:
        raise ConfigError(
            f"{SWITCH} decides where jobs start from: leave out resume.path, resume.snapshot, resume.policy"
        )
    if snapshots:
        raise ConfigError(f"{SWITCH} sets trainer.snapshots itself: leave out trainer.snapshots={snapshots}")


def _without_length(settings: Settings) -> str:
    """A config as text, without its name and its length."""
    plain = {key: value for key, value in flat(settings.source).items() if key not in ("name", LENGTH)}
    return json.dumps(plain, sort_keys=True, default=str)
