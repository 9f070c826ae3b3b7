"""Runs that differ from one that is built in `optimizer.lr` alone, made from its parts for a stack.

Nothing is resolved, read or initialised again: the policy has another base rate, the net is a copy of the untrained
one. Data, step, scores and optimizer settings are those of the first run.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytorch_lightning as pl

from trainer.checkpoint.checkpointing import Checkpointing
from trainer.config.components import Parts
from trainer.config.resolve import Resolved
from trainer.config.settings import Settings
from trainer.engine.module import Module


def why_no_siblings(first: Parts) -> str:
    """Why a run has no siblings; empty where it may have."""
    resolved = first.resolved
    written = json.dumps(resolved.settings.source, default=str)
    if ".lr}" in written or "name}" in written:
        return "another setting follows the rate or the name"
    if resolved.plan.policy.scale != 1.0 or resolved.plan.policy.hyper_schedules:
        return "other numbers may follow the rate"
    if resolved.settings.logger or "optimizer" in resolved.settings.curve.groups:
        return "a logger or a second optimizer belongs to each run"
    return ""


def sibling(first: Parts, rate: float, name: str, folder: Path) -> Parts:
    """The parts of the same run with another `optimizer.lr` and name, in `folder`."""
    resolved = _resolved(first.resolved, rate, name)
    spec = replace(
        first.module.spec,
        policy=resolved.plan.policy,
        origin={**first.module.spec.origin, "config": resolved.settings.record, "curve_history": resolved.history},
    )
    module = Module(deepcopy(first.module.net), first.module.task, spec, first.module.scores)
    module.step = first.module.step
    trainer = cast(pl.Trainer, _TrainerOf(first.trainer))
    own = first.checkpointing
    checkpointing = Checkpointing(folder / own.folder.name, own.monitor, own.mode)
    return replace(first, resolved=resolved, folder=folder, module=module, trainer=trainer, checkpointing=checkpointing)


class _TrainerOf(SimpleNamespace):
    """What a stack and a result read of Lightning's trainer, without loggers."""

    def __init__(self, trainer: pl.Trainer) -> None:
        same = {name: getattr(trainer, name) for name in ("precision_plugin", "strategy", "world_size", "global_rank")}
        super().__init__(**same, loggers=[], is_global_zero=True)


def _resolved(first: Resolved, rate: float, name: str) -> Resolved:
    settings = _settings(first.settings, rate, name)
    policy = replace(first.plan.policy, base_lr=rate)
    numbers = replace(first.numbers, curve=replace(first.numbers.curve, optimizer=settings.curve.optimizer))
    history = [{**first.history[0], "config": settings.record}]
    return replace(first, settings=settings, numbers=numbers, plan=replace(first.plan, policy=policy), history=history)


def _settings(first: Settings, rate: float, name: str) -> Settings:
    def other(config: Mapping[str, Any]) -> dict[str, Any]:
        return {**config, "name": name, "optimizer": {**config["optimizer"], "lr": rate}}

    optimizer = {**first.curve.optimizer, "lr": rate}
    curve = replace(first.curve, optimizer=optimizer)
    return replace(first, name=name, curve=curve, record=other(first.record), source=other(first.source))
