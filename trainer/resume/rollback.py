"""Rollback: a run that diverged goes on from its newest finite checkpoint, without the batch or at a lower rate."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.checkpoint.checkpointing import Checkpointing
from trainer.checkpoint.io import AtomicCheckpointIO, checkpoint_path, checkpoints_in, good_checkpoints
from trainer.engine.guard import Diverged
from trainer.engine.module import Module
from trainer.lr import ConfigError
from trainer.lr.backoff import after_rollback, rollbacks
from trainer.lr.guard import Rollback
from trainer.resume.curve_history import ROLLBACK, Segment
from trainer.resume.resume_point import ResumePoint


def roll_back(failure: Diverged, module: Module, checkpointing: Checkpointing) -> ResumePoint:
    """The checkpoint that the run goes on from; all ranks call it together.

    It is the newest one that is not damaged, or the one before where the run has failed again after a rollback to
    the newest. Its file then holds the rollback, as a segment of the curve's history, and the batch that is left out.
    Newer files are removed. Raises `failure` where the guard does not roll back, and another `Diverged` at its limit.
    """
    rule = module.guard.rule
    if not isinstance(rule, Rollback):
        raise failure
    history: list[Segment] = module.spec.origin["curve_history"]
    past = [segment for segment in history if segment["rule"] == ROLLBACK]
    if len(past) >= rule.limit:
        raise Diverged(f"{failure} The run has rolled back guard.limit={rule.limit} times.", failure.update)
    folder, trainer = checkpointing.folder, module.trainer
    point = ResumePoint.read(Path(trainer.strategy.broadcast(_file_to_return_to(folder, past, module))), folder.parent)
    positions = _offending(failure, module, point.saved["updates"]) if rule.leave_out else []
    left_out = sorted({*point.saved.get("left_out", []), *module.clock.left_out, *positions})
    now = module.control.rollbacks
    added = after_rollback(point.saved["updates"], rule.backoff, rule.rewarm, now)
    segment = {
        **history[-1],
        "rule": ROLLBACK,
        "samples": point.saved["updates"] * point.saved["batch_size"],
        "factor": added.factor,
        "rewarm": added.rewarm,
        "failed": failure.update,
    }
    history.append(segment)
    module.control.rollbacks = rollbacks(history, module.horizon.batch_size)
    saved = {**point.saved, "left_out": left_out, "curve_history": list(history)}
    point = ResumePoint(point.path, point.folder, {**point.content, "cadence": saved})
    if trainer.is_global_zero:
        AtomicCheckpointIO().save_checkpoint(point.content, point.path)
        for path in checkpoints_in(folder):
            if path.name > point.path.name:
                path.unlink()
    return point


def event(point: ResumePoint, failure: Diverged, limit: int) -> str:
    """What has happened, in one line."""
    history = point.saved["curve_history"]
    count, last = sum(segment["rule"] == ROLLBACK for segment in history), history[-1]
    back = f", back at 1 after {last['rewarm']} updates" if last["rewarm"] and last["factor"] < 1 else ""
    why, out = str(failure).partition(": the run stops")[0], len(point.saved["left_out"])
    return (
        f"{why}: rolled back to update {point.saved['updates']}, {count} of {limit}; rate × {last['factor']:g}{back}; "
        f"{out} batch{'es' * (out != 1)} left out.{failure.inputs}"
    )


def _file_to_return_to(folder: Path, past: list[Segment], module: Module) -> str:
    """The file to return to, chosen on rank 0."""
    if not module.trainer.is_global_zero:
        return ""
    found = list(islice(good_checkpoints(folder), 2))
    if not found:
        raise ConfigError(f"guard=rollback: {folder} holds no good checkpoint to return to: start a new run.")
    last = past[-1]["samples"] // module.horizon.batch_size if past else -1
    again = found[0] == checkpoint_path(folder, last) and len(found) > 1
    return str(found[1] if again else found[0])


def _offending(failure: Diverged, module: Module, begin: int) -> list[int]:
    """The positions of the batch to leave out; none where the weights were not finite before it."""
    t = failure.update
    if t is None or t < begin:
        return []
    if module.clock.t == t and not finite(dict(module.net.named_parameters())):
        return []
    data: Any = module.trainer.datamodule  # type: ignore[attr-defined]
    return list(data.positions(t))


def finite(tree: Any) -> bool:
    """Whether every number of the tensors in a nest of dicts and lists is finite."""
    if isinstance(tree, Tensor):
        return not tree.is_floating_point() or bool(torch.isfinite(tree.detach()).all())
    if isinstance(tree, Mapping):
        return all(map(finite, tree.values()))
    return all(map(finite, tree)) if isinstance(tree, list | tuple) else True
