"""Jobs of a sweep that differ in their length only: the longest is a trunk, and the others branch off it.

Data, augmentation and dropout are functions of (seed, update). So up to the first update at which two planned curves
differ, the shorter run and the longer one have the same bits, and one training serves both.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf

from trainer.checkpoint.snapshots import has_checkpoint, snapshot_path
from trainer.config import settings as curve
from trainer.lr import ConfigError
from trainer.resume.changes import flat
from trainer.sweep.first_difference import LENGTH, Planned, parting
from trainer.sweep.job import Job

SWITCH = "hydra.launcher.shared_prefix=true"


def share(batch: Sequence[Job], configs: Sequence[DictConfig]) -> None:
    """Let jobs branch off the longest of those that differ from them in their length only.

    Raises:
        ConfigError: no job can, or a job says where it starts from.
    """
    sets: dict[str, list[Planned]] = {}
    for job, whole in zip(batch, configs):
        cfg = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
        _check(cfg)
        sets.setdefault(_but_length(cfg), []).append(Planned(job, cfg))
    alone = [line for alike in sets.values() if len(alike) > 1 for line in _share(alike)]
    if not any(job.trunk for job in batch):
        why = alone[0] if alone else f"no two jobs differ in {LENGTH} only"
        raise ConfigError(f"{SWITCH}: {why}")
    for job in batch:
        if job.trunk is not None:
            print(f"job {job.number} branches off job {job.trunk.number} after update {job.branch}")
    print(*alone, sep="\n", end="\n" if alone else "", flush=True)


class Branches:
    """The jobs of a batch that wait for their trunk."""

    def __init__(self, batch: Sequence[Job]) -> None:
        self.held = [job for job in batch if job.trunk is not None and job.status != "completed"]

    def settled(self) -> Iterator[Job]:
        """The jobs that wait no longer: they may start, or their trunk has failed before they could."""
        for job in list(self.held):
            if self._settle(job):
                self.held.remove(job)
                yield job

    def _settle(self, job: Job) -> bool:
        assert job.trunk is not None
        kept = snapshot_path(job.trunk.folder / "checkpoints", job.branch)
        if kept.exists() or has_checkpoint(job.folder):
            place = QuotedString(text=str(kept), quote=Quote.single).with_quotes()
            job.command.append(f"resume.snapshot={place}")
        elif job.trunk.status == "completed":
            print(f"job {job.number} runs alone: job {job.trunk.number} ended without a checkpoint {kept}", flush=True)
        elif job.trunk.status in ("failed", "stopped", "pruned"):
            job.status = "stopped"
            job.error = f"not run: job {job.trunk.number}, its trunk, {job.trunk.status} before update {job.branch}"
        else:
            return False
        return True


def saved(jobs: Sequence[Job]) -> str:
    """How many updates the completed jobs asked for, and how many were trained for them."""
    asked = spared = 0
    for job in (job for job in jobs if job.status == "completed"):
        try:
            facts = json.loads((job.folder / "plan.json").read_text(encoding="utf-8"))
            asked += facts["total_updates"]
            spared += sum(change["update"] for change in facts["changes"] if "of" in change)
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return f"trunk: {asked:,} updates asked, {asked - spared:,} trained"


def _share(alike: Sequence[Planned]) -> Iterator[str]:
    """Set the branches of jobs that differ in their length only; a line for each that has none."""
    trunk = max(alike, key=lambda planned: planned.length.total)
    branches = []
    for planned in alike:
        if planned is trunk:
            continue
        shared, why = parting(trunk, planned)
        if shared:
            planned.job.trunk, planned.job.branch = trunk.job, shared
            branches.append(shared)
            if planned.cfg.resume.path != "auto":
                planned.job.command.append("resume.path=auto")
        else:
            yield f"jobs {planned.job.number} and {trunk.job.number} share nothing, {why}"
    if branches:
        trunk.job.command.append(f"trainer.snapshots={sorted(set(branches))}".replace(" ", ""))


def _check(cfg: DictConfig) -> None:
    curve.check_keys(cfg)
    resume = cfg.resume
    if resume.path not in (None, "none", "auto") or resume.snapshot is not None or resume.policy is not None:
        raise ConfigError(
            f"{SWITCH} says itself where jobs start from: leave out resume.path, resume.snapshot, resume.policy"
        )
    if cfg.trainer.get("snapshots"):
        raise ConfigError(
            f"{SWITCH} sets trainer.snapshots itself: leave out trainer.snapshots={cfg.trainer.snapshots}"
        )


def _but_length(cfg: DictConfig) -> str:
    """A config as text, without its name and its length."""
    tree: Any = OmegaConf.to_container(cfg, resolve=False)
    plain = {key: value for key, value in flat(tree).items() if key not in ("name", LENGTH)}
    return json.dumps(plain, sort_keys=True, default=str)
