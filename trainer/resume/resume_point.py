"""Resuming: from which checkpoint, whether it fits this run, and a run that lacks only its test."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn

from trainer.checkpoint.checkpointing import Checkpointing
from trainer.checkpoint.io import DamagedCheckpoint, checkpoint_path, checkpoints_in, read
from trainer.distributed.launch.launcher import is_restart, rank
from trainer.engine.averaging import recent
from trainer.engine.clock import Clock
from trainer.engine.module import Module
from trainer.files.plain import read_record
from trainer.lr import ConfigError, Horizon
from trainer.optim.groups import Group
from trainer.resume.curve_history import ResumeSettings

_SPLIT = {"folds": None, "fold": None, "split_seed": 0}
"""Settings of the data that decide which samples train, and their values where they are left out."""
_KEPT = {"updates", "batch_size", "updates_per_epoch", "config", "curve_history"}


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint that the run in `folder` goes on from: its file at `path`, read once.

    `damaged` are newer ones, which cannot be read.
    """

    path: Path
    folder: Path
    content: dict[str, Any]
    damaged: tuple[Path, ...] = ()

    @classmethod
    def read(cls, path: Path, folder: Path) -> "ResumePoint":
        """Read the checkpoint at `path`. Raises ConfigError where a part of it is missing."""
        content = read(path)
        if lacking := {"state_dict", "optimizer_states"} - set(content) or _KEPT - set(content["cadence"]):
            raise ConfigError(
                f"resume.path={path} lacks {', '.join(sorted(lacking))}: it is not a complete checkpoint."
            )
        return cls(path, folder, content)

    @property
    def saved(self) -> dict[str, Any]:
        """The entry of Cadence in the checkpoint: the clock, the config, where the curve comes from."""
        saved: dict[str, Any] = self.content["cadence"]
        return saved


@dataclass(frozen=True)
class Start:
    """Where a resumed run begins: after `updates` updates of its own, and `reached` on the clock of its curve."""

    updates: int
    reached: int


@dataclass(frozen=True)
class Fitted:
    """What a checkpoint must fit: the net, its parameter groups, the kind of optimizer, the length and data of the run.

    `base` is the hash of the frozen net below an adapter, which is not in the checkpoint.
    """

    net: nn.Module
    groups: Sequence[Group]
    optimizer: str
    length: Horizon
    data: Mapping[str, Any]
    base: str | None = None


def resume_point(resume: ResumeSettings, folder: Path) -> ResumePoint | None:
    """The checkpoint to go on from, if any; a run that Slurm or torchrun has started again goes on from its own.

    Of a folder it is the newest that is not damaged.

    `resume.snapshot` counts only where `resume.path` gives no checkpoint.
    """
    again = is_restart(folder)
    if resume.snapshot is not None and resume.path not in (None, "none", "auto"):
        raise ConfigError(
            f"resume.snapshot={resume.snapshot} beside resume.path={resume.path}: a run starts from one of them."
        )
    found = (candidates("auto", folder) if again else []) or candidates(resume.path, folder)
    if not found and resume.snapshot is not None:
        found = _in_place("resume.snapshot", Path(str(resume.snapshot)))
    if rank() == 0 and not again:
        check_unused(folder, resume.path, found[0] if found else None)
        if resume.path == "auto" and not found and _holds_run(folder):
            print(
                f"{folder} holds a run without a checkpoint: resume=auto starts it from the beginning", file=sys.stderr
            )
    return newest_good(found, folder) if found else None


def candidates(resume: Any, folder: Path) -> list[Path]:
    """The checkpoints to go on from, the newest first: none, those of this run's folder, or what is named."""
    if resume in (None, "none"):
        return []
    if resume == "auto":
        return checkpoints_in(folder / "checkpoints")[::-1]
    return _in_place("resume.path", Path(str(resume)))


def _in_place(key: str, path: Path) -> list[Path]:
    """The checkpoint at `path`, or those in that folder, the newest first."""
    if path.is_file():
        return [path]
    found = checkpoints_in(path / "checkpoints") or checkpoints_in(path)
    if not found:
        what = "holds no checkpoint" if path.is_dir() else "does not exist"
        other = "none, auto, " if key == "resume.path" else ""
        raise ConfigError(f"{key}={path} {what}: give {other}a run's folder or a checkpoint file.")
    return found[::-1]


def newest_good(found: Sequence[Path], folder: Path) -> ResumePoint:
    """The first of the checkpoints that is not damaged; those that are left out for it are named on rank 0.

    Each rank reads the files itself, and `ConsistencyCheck` compares what they took.

    Raises:
        ConfigError: all are damaged, or the first good one does not fit this version.
    """
    damaged: dict[Path, str] = {}
    for path in found:
        try:
            point = ResumePoint.read(path, folder)
        except DamagedCheckpoint as error:
            if len(found) == 1:
                raise
            damaged[path] = error.why
            continue
        except ConfigError:
            if path.exists():
                raise
            if path.is_symlink():
                damaged[path] = "it is a link that leads nowhere"
            continue  # else rank 0 has put it aside meanwhile
        if damaged and rank() == 0:
            names = "; ".join(f"{left.name} is left out: {why}" for left, why in damaged.items())
            print(f"{names}. The run goes on from {path}", file=sys.stderr)
        return replace(point, damaged=tuple(damaged))
    why = "; ".join(f"{left.name}: {why}" for left, why in damaged.items())
    raise ConfigError(
        f"all checkpoints in {found[0].parent} are damaged ({why}): put back a copy of one, or start a new run under "
        "another name."
    )


def put_aside(point: ResumePoint) -> None:
    """Give the damaged checkpoints of this run's folder another name, so that they count no longer as the newest."""
    for path in point.damaged:
        if path.parent.resolve().is_relative_to(point.folder.resolve()):
            path.rename(path.with_name(f"{path.name}.damaged"))


def check_unused(folder: Path, resume: Any, resumed: Path | None) -> None:
    """Refuse a folder that holds a run already, unless this run resumes from it."""
    inside = resumed is not None and resumed.parent.resolve().is_relative_to(folder.resolve())
    if resume != "auto" and not inside and _holds_run(folder):
        raise ConfigError(f"{folder} holds a run already: give another name, or go on with resume=auto.")


def _holds_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.yaml", "result.json"))


def check_fits(checkpoint: ResumePoint, fitted: Fitted) -> None:
    """Refuse a checkpoint of another model, another kind of optimizer, or data whose epochs are of another length."""
    path, saved, length = checkpoint.path, checkpoint.saved, fitted.length
    state = checkpoint.content["state_dict"].items()
    if (base := saved.get("base")) != fitted.base:
        raise ConfigError(
            f"resume.path={path} is of an adapter on frozen weights with the hash {base}, and this run has "
            f"{fitted.base}: keep adapter, freeze, init and the model, or start a new run."
        )
    _check_shapes(path, {k[4:]: v for k, v in state if k.startswith("net.")}, fitted.net.state_dict())
    if saved.get("tau") is not None and saved["batch_size"] != length.batch_size:
        raise ConfigError(
            f"resume.path={path} has gains of batches of {saved['batch_size']} samples, not of {length.batch_size}: "
            "with scaling=adascale keep the global batch, or start a new run."
        )
    if not _same_data(saved, length):
        raise ConfigError(
            f"resume.path={path} counts {saved['updates_per_epoch']} updates of {saved['batch_size']} samples an "
            f"epoch, but this run has {length.updates_per_epoch} of {length.batch_size}: keep the data."
        )
    before, now = ([data.get(*item) for item in _SPLIT.items()] for data in (saved["config"]["data"], fitted.data))
    if before != now:
        changed = [f"data.{key}={value}" for key, value, other in zip(_SPLIT, before, now) if value != other]
        raise ConfigError(
            f"resume.path={path} was trained with {', '.join(changed)}: this run would validate on samples that it has "
            "trained on. Keep them, or start a new run."
        )
    _check_optimizer(checkpoint, fitted)


def kind_of_optimizer(config: Mapping[str, Any]) -> str:
    """The class of the optimizer, or the function that makes it; with optimizer=module that of the module."""
    node = config["optimizer"]
    return str(node.get("class", node["_target_"]))


def start_of(checkpoint: ResumePoint, horizon: Horizon) -> Start:
    """Where the run of `horizon` begins, counted in its own updates.

    Raises:
        ConfigError: the checkpoint is not after a whole number of updates of this batch, is not the newest of this
            run's folder, counts other updates than the run in this folder, or leaves nothing to do.
    """
    path, folder, saved = checkpoint.path, checkpoint.folder, checkpoint.saved
    samples, batch = saved["updates"] * saved["batch_size"], horizon.batch_size
    if samples % batch:
        raise ConfigError(
            f"resume.path={path} is {samples} samples into its run, which are not whole updates of {batch}: "
            "resume from another checkpoint, or keep the global batch."
        )
    updates = samples // batch
    if batch != saved["batch_size"] and path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"resume.path={path} counts updates of {saved['batch_size']} samples, as this whole folder does: "
            f"give the run another name to go on with {batch}."
        )
    ours = folder / "checkpoints"
    later = [other for other in checkpoints_in(ours) if other.name > checkpoint_path(ours, updates).name]
    newer = [other for other in later if other not in checkpoint.damaged]
    if path in newer:
        raise ConfigError(
            f"resume.path={path} has another name than the run gave it: call it {checkpoint_path(ours, updates).name}."
        )
    if newer and path.parent.resolve() == ours.resolve():
        raise ConfigError(
            f"resume.path={path} lies before {newer[-1].name} in this run's own folder: go on with resume=auto, "
            "or give another name to branch off."
        )
    reached = Clock(updates, saved.get("tau")).at
    finished = reached >= horizon.total and _status(folder) == "completed"
    if updates > horizon.total or finished:
        raise ConfigError(
            f"resume.path={path} has all {updates} updates of this run: lengthen trainer.duration to go on."
        )
    return Start(updates, reached)


def take_up(checkpoint: ResumePoint, module: Module, checkpointing: Checkpointing) -> None:
    """Load the state of a run that has made all its updates, and lacks its test and its result."""
    module.load_state_dict(checkpoint.content["state_dict"])
    module.on_load_checkpoint(checkpoint.content)
    checkpointing.load_state_dict(checkpoint.content["callbacks"][checkpointing.state_key])
    checkpointing.adopt()


def take_up_average(checkpoint: ResumePoint, module: Module, data: pl.LightningDataModule) -> None:
    """Put averaged weights in place where a run that has made all its updates has only its last checkpoint."""
    optimizer = module.configure_optimizers()
    optimizer.load_state_dict(checkpoint.content["optimizer_states"][0])
    module.averaging.begin(optimizer)
    count = module.spec.average.recalibrate
    batches = recent(data.train_dataloader(), module.clock, count, module.spec.micro_batches)
    module.averaging.swap_in(batches, module.run_step)


def _status(folder: Path) -> str | None:
    """The status in the result of a folder, if there is one."""
    return read_record(folder / "result.json").get("status")


def _same_data(saved: dict[str, Any], length: Horizon) -> bool:
    """Whether an epoch has as many samples as before; with another batch, up to less than one batch."""
    before, now = saved["updates_per_epoch"], length.updates_per_epoch
    if before is None or now is None or saved["batch_size"] == length.batch_size:
        return before == now
    rest = before * saved["batch_size"] - now * length.batch_size
    return abs(rest) < max(saved["batch_size"], length.batch_size)


def _check_shapes(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """The checkpoint must hold the tensors of this model, each with its shape."""
    for name in sorted(theirs.keys() | ours.keys()):
        shapes = [list(state[name].shape) if name in state else "none" for state in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise ConfigError(
                f"resume.path={path} has {name} with shape {shapes[0]} where this model has {shapes[1]}: "
                "it is of another model. Keep the model, or start a new run."
            )


def _check_optimizer(checkpoint: ResumePoint, fitted: Fitted) -> None:
    """The checkpoint must hold the state of this optimizer, for these parameter groups."""
    path, theirs = checkpoint.path, kind_of_optimizer(checkpoint.saved["config"])
    if theirs != fitted.optimizer:
        raise ConfigError(
            f"resume.path={path} has the state of {theirs}, not of {fitted.optimizer}: "
            "keep the optimizer, or start a new run."
        )
    sizes = [len(group["params"]) for group in checkpoint.content["optimizer_states"][0]["param_groups"]]
    if sizes != [len(group.parameters) for group in fitted.groups]:
        raise ConfigError(
            f"resume.path={path} has parameter groups of {sizes} tensors, and this run has others: "
            "keep freeze, and optimizer.weight_decay above zero or at zero, as they were, or start a new run."
        )
