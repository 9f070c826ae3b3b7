"""Going on from a checkpoint: which one, whether it fits this run, and a run that lacks only its test."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.checkpoint import history, numbered, read
from trainer.lr import Refusal

if TYPE_CHECKING:
    from trainer.assemble.run import Assembly

_KEPT = {"updates", "batch_size", "updates_per_epoch", "config"}


def resume_point(resume: Any, folder: Path) -> Path | None:
    """The checkpoint to go on from: none, the newest of this run's folder, or the one named."""
    if resume in (None, "none"):
        return None
    if resume == "auto":
        ours = history(folder / "checkpoints")
        return ours[-1] if ours else None
    path = Path(str(resume))
    if path.is_file():
        return path
    found = history(path / "checkpoints") or history(path)
    if not found:
        what = "holds no checkpoint" if path.is_dir() else "does not exist"
        raise Refusal(f"resume={resume} {what}: give none, auto, a run's folder or a checkpoint file.")
    return found[-1]


def check_unused(folder: Path, resume: Any, resumed: Path | None) -> None:
    """A run's folder is its own: another may only go on with it."""
    inside = resumed is not None and resumed.resolve().is_relative_to(folder.resolve())
    if resume != "auto" and not inside and any((folder / name).exists() for name in ("config.yaml", "result.json")):
        raise Refusal(f"{folder} holds a run already: give another name, or go on with resume=auto.")


def check_resumable(assembly: "Assembly", path: Path) -> dict[str, Any]:
    """What this framework keeps in the checkpoint at `path`; refused where it is not one of this run.

    Its clock counts updates of one batch size, and its tensors belong to one model and one kind of optimizer.
    """
    checkpoint, horizon = read(path), assembly.module.horizon
    saved = checkpoint["cadence"]
    if lacking := {"state_dict", "optimizer_states"} - set(checkpoint) or _KEPT - set(saved):
        raise Refusal(f"resume={path} lacks {', '.join(sorted(lacking))}: it is no whole checkpoint. Name another.")
    _check_shapes(path, checkpoint["state_dict"], assembly.module.state_dict())
    for name in ("batch_size", "updates_per_epoch"):
        if saved[name] != getattr(horizon, name):
            raise Refusal(
                f"resume={path} counts updates with {name}={saved[name]}, but this run has {getattr(horizon, name)}: "
                "its clock does not fit. Keep the global batch and the data, or start a new run."
            )
    ours = assembly.folder / "checkpoints"
    newer = [other for other in history(ours) if other.name > numbered(ours, saved["updates"]).name]
    if newer and path.parent.resolve() == ours.resolve():
        raise Refusal(
            f"resume={path} lies before {newer[-1].name} in this run's own folder: go on with resume=auto, "
            "or give another name to branch off."
        )
    finished = saved["updates"] == horizon.total and _status(assembly.folder) == "completed"
    if saved["updates"] > horizon.total or finished:
        raise Refusal(
            f"resume={path} has all {saved['updates']} updates of this run: lengthen trainer.duration to go on."
        )
    _check_optimizer(path, checkpoint, assembly)
    return saved


def restore(assembly: "Assembly", checkpoint: dict[str, Any]) -> None:
    """Take up a run that has made all its updates, and lacks its test and its result."""
    module, checkpointing = assembly.module, assembly.checkpointing
    module.load_state_dict(checkpoint["state_dict"])
    module.clock.t = checkpoint["cadence"]["updates"]
    checkpointing.load_state_dict(checkpoint["callbacks"][checkpointing.state_key])
    checkpointing.adopt(assembly.trainer)


def _status(folder: Path) -> str | None:
    """What the result in a folder says, if there is one."""
    path = folder / "result.json"
    return json.loads(path.read_text(encoding="utf-8"))["status"] if path.exists() else None


def _check_shapes(path: Path, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """The checkpoint must hold the tensors of this model, each with its shape."""
    for name in sorted(theirs.keys() | ours.keys()):
        shapes = [list(state[name].shape) if name in state else "none" for state in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise Refusal(
                f"resume={path} has {name} with shape {shapes[0]} where this model has {shapes[1]}: "
                "it is of another model. Keep the model, or start a new run."
            )


def _check_optimizer(path: Path, checkpoint: dict[str, Any], assembly: "Assembly") -> None:
    """The checkpoint must hold the state of this optimizer, for these parameter groups."""
    theirs, ours = checkpoint["cadence"]["config"]["optimizer"]["_target_"], assembly.cfg.optimizer._target_
    if theirs != ours:
        raise Refusal(
            f"resume={path} has the state of {theirs}, not of {ours}: keep the optimizer, or start a new run."
        )
    sizes = [len(group["params"]) for group in checkpoint["optimizer_states"][0]["param_groups"]]
    if sizes != [len(group.parameters) for group in assembly.module.recipe.groups]:
        raise Refusal(
            f"resume={path} has parameter groups of {sizes} tensors, which this run has not: "
            "keep optimizer.weight_decay above zero or at zero, as it was, or start a new run."
        )
