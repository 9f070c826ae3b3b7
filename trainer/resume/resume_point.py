"""Going on from a checkpoint: which one, whether it fits this run, and a run that lacks only its test."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from torch import nn

from trainer.checkpoint.io import checkpoint_path, checkpoints_in, read
from trainer.distributed.launch.launcher import is_restart, rank
from trainer.engine.clock import Clock
from trainer.lr import ConfigError, Horizon
from trainer.optim.groups import Group
from trainer.resume.curve_history import curve_history

if TYPE_CHECKING:
    from trainer.run import Assembly

_KEPT = {"updates", "batch_size", "updates_per_epoch", "config", "curve_history"}


@dataclass(frozen=True)
class Fitted:
    """What a checkpoint must fit: the net, its parameter groups, the kind of optimizer, the length of the run."""

    net: nn.Module
    groups: Sequence[Group]
    optimizer: str
    length: Horizon


def begin_from(resume: DictConfig, folder: Path) -> Path | None:
    """The checkpoint to go on from, if any; what Slurm or torchrun has started again goes on with its own run.

    A run that starts from a trunk does so where `resume.path` gives it nothing to go on from.
    """
    again = is_restart(folder)
    if resume.snapshot is not None and resume.path not in (None, "none", "auto"):
        raise ConfigError(
            f"resume.snapshot={resume.snapshot} beside resume.path={resume.path}: a run starts from one of them."
        )
    resumed = (resume_point("auto", folder) if again else None) or resume_point(resume.path, folder)
    if resumed is None and resume.snapshot is not None:
        resumed = _newest("resume.snapshot", Path(str(resume.snapshot)))
    if rank() == 0 and not again:
        check_unused(folder, resume.path, resumed)
    return resumed


def resume_point(resume: Any, folder: Path) -> Path | None:
    """The checkpoint to go on from: none, the newest of this run's folder, or the one named."""
    if resume in (None, "none"):
        return None
    if resume == "auto":
        ours = checkpoints_in(folder / "checkpoints")
        return ours[-1] if ours else None
    return _newest("resume.path", Path(str(resume)))


def _newest(key: str, path: Path) -> Path:
    """The checkpoint at `path`, or the newest in that folder."""
    if path.is_file():
        return path
    found = checkpoints_in(path / "checkpoints") or checkpoints_in(path)
    if not found:
        what = "holds no checkpoint" if path.is_dir() else "does not exist"
        other = "none, auto, " if key == "resume.path" else ""
        raise ConfigError(f"{key}={path} {what}: give {other}a run's folder or a checkpoint file.")
    return found[-1]


def check_unused(folder: Path, resume: Any, resumed: Path | None) -> None:
    """A run's folder is its own: another may only go on with it."""
    inside = resumed is not None and resumed.resolve().is_relative_to(folder.resolve())
    if resume != "auto" and not inside and any((folder / name).exists() for name in ("config.yaml", "result.json")):
        raise ConfigError(f"{folder} holds a run already: give another name, or go on with resume=auto.")


def whole(path: Path) -> dict[str, Any]:
    """The checkpoint at `path`; refused where a part of it is missing."""
    checkpoint = read(path)
    if lacking := {"state_dict", "optimizer_states"} - set(checkpoint) or _KEPT - set(checkpoint["cadence"]):
        raise ConfigError(f"resume.path={path} lacks {', '.join(sorted(lacking))}: it is no whole checkpoint.")
    return checkpoint


def check_fits(path: Path, checkpoint: dict[str, Any], fitted: Fitted) -> None:
    """Refuse a checkpoint of another model, another kind of optimizer, or data whose epochs are of another length."""
    saved, length = checkpoint["cadence"], fitted.length
    state = checkpoint["state_dict"].items()
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
    _check_optimizer(path, checkpoint, fitted)


def check_resumable(assembly: "Assembly", path: Path) -> dict[str, Any]:
    """What this framework keeps in the checkpoint at `path`, its updates counted on the clock of this run.

    Refused where it is not one of this run: its tensors belong to one model and one kind of optimizer, and its curve
    is a part of this run's.
    """
    checkpoint, horizon = whole(path), assembly.module.horizon
    module, saved = assembly.module, checkpoint["cadence"]
    check_fits(path, checkpoint, Fitted(module.net, module.spec.groups, assembly.cfg.optimizer._target_, horizon))
    if module.spec.origin["curve_history"][: len(saved["curve_history"])] != saved["curve_history"]:
        curve_history(assembly.cfg, horizon, saved)
    samples, batch = saved["updates"] * saved["batch_size"], horizon.batch_size
    if samples % batch:
        raise ConfigError(
            f"resume.path={path} is {samples} samples into its run, between two updates of {batch}: "
            "resume from another checkpoint, or keep the global batch."
        )
    updates = samples // batch
    if batch != saved["batch_size"] and path.resolve().is_relative_to(assembly.folder.resolve()):
        raise ConfigError(
            f"resume.path={path} counts updates of {saved['batch_size']} samples, as all of this folder: "
            f"give the run another name to go on with {batch}."
        )
    ours = assembly.folder / "checkpoints"
    newer = [other for other in checkpoints_in(ours) if other.name > checkpoint_path(ours, updates).name]
    if newer and path.parent.resolve() == ours.resolve():
        raise ConfigError(
            f"resume.path={path} lies before {newer[-1].name} in this run's own folder: go on with resume=auto, "
            "or give another name to branch off."
        )
    reached = Clock(updates, saved.get("tau")).at
    finished = reached >= horizon.total and _status(assembly.folder) == "completed"
    if updates > horizon.total or finished:
        raise ConfigError(
            f"resume.path={path} has all {updates} updates of this run: lengthen trainer.duration to go on."
        )
    return {**saved, "updates": updates, "reached": reached}


def restore(assembly: "Assembly", checkpoint: dict[str, Any]) -> None:
    """Take up a run that has made all its updates, and lacks its test and its result."""
    module, checkpointing = assembly.module, assembly.checkpointing
    module.load_state_dict(checkpoint["state_dict"])
    module.on_load_checkpoint(checkpoint)
    checkpointing.load_state_dict(checkpoint["callbacks"][checkpointing.state_key])
    checkpointing.adopt()


def _status(folder: Path) -> str | None:
    """What the result in a folder says, if there is one."""
    path = folder / "result.json"
    return json.loads(path.read_text(encoding="utf-8"))["status"] if path.exists() else None


def _same_data(saved: dict[str, Any], length: Horizon) -> bool:
    """Whether an epoch has the samples that it had; with another batch, all but a rest of less than a batch."""
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


def _check_optimizer(path: Path, checkpoint: dict[str, Any], fitted: Fitted) -> None:
    """The checkpoint must hold the state of this optimizer, for these parameter groups."""
    theirs = checkpoint["cadence"]["config"]["optimizer"]["_target_"]
    if theirs != fitted.optimizer:
        raise ConfigError(
            f"resume.path={path} has the state of {theirs}, not of {fitted.optimizer}: "
            "keep the optimizer, or start a new run."
        )
    sizes = [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]]
    if sizes != [len(group.parameters) for group in fitted.groups]:
        raise ConfigError(
            f"resume.path={path} has parameter groups of {sizes} tensors, which this run has not: "
            "keep optimizer.weight_decay above zero or at zero, as it was, or start a new run."
        )
