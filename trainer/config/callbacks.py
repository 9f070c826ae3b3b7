"""The callbacks of a config: which of Lightning's a run can have, and the scores that they watch."""

import inspect
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl

from trainer.config.instantiate import called_by, expect, instantiate
from trainer.config.settings import Settings
from trainer.engine.early_stopping import EarlyStopping
from trainer.engine.task import Task
from trainer.lr import ConfigError

_HOMES = ("pytorch_lightning.callbacks.", "lightning.pytorch.callbacks.")
_FREEZING = "the run chooses what is trained: set freeze, groups=backbone_head or groups=gradual_unfreezing"
_SAVING = "the run writes its checkpoints: set trainer.checkpoint, trainer.keep and task.monitor"
_PROGRESS = "it counts batches, and a run hands over chunks of updates: take callbacks=default"
REPLACED: Mapping[str, str] = {
    "BaseFinetuning": _FREEZING,
    "BasePredictionWriter": "a run makes no predictions: use cadence predict",
    "BatchSizeFinder": "the batch is part of the plan: set data.batch_size, and see cadence noise-scale",
    "Checkpoint": _SAVING,
    "EarlyStopping": "its settings would come from the checkpoint: take callbacks=early_stopping",
    "GradientAccumulationScheduler": "the batch is part of the plan: set trainer.accumulate or batch_schedule=grow",
    "LearningRateFinder": "the learning rate is part of the plan: use cadence range-test",
    "LearningRateMonitor": "it sees only every chunk of updates: the log has the rate of each update as lr/GROUP",
    "ModelPruning": "it changes the weights between updates, and nothing takes its place: prune a trained net",
    "OnExceptionCheckpoint": _SAVING,
    "ProgressBar": _PROGRESS,
    "SpikeDetection": "a run checks the loss of each update itself: set guard=stop, skip or rollback",
    "StochasticWeightAveraging": "it changes weights and rates: take average=swa",
    "ThroughputMonitor": "it counts batches, and a run hands over chunks: the log has train/samples_per_second",
    "Timer": "it ends a run without its checkpoint: set trainer.max_time",
    "WeightAveraging": "the run averages the weights: take average=ema or average=swa",
}
"""Callbacks of Lightning that change weights, rates or batches, or count batches, and what a run has in their place.
Those that are built on them are refused, too."""
NEVER_CALLED = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
"""Hooks inside an update: a run calls its callbacks between two chunks of updates."""
_CHUNKS = ("on_train_batch_start", "on_train_batch_end")


def callbacks_of(settings: Settings) -> list[pl.Callback]:
    """The callbacks of the config. Raises `ConfigError` for one that a run cannot have."""
    made = []
    for name, node in settings.callbacks.items():
        key = f"callbacks.{name}"
        if isinstance(node, Mapping) and "_target_" in node:
            if (target := str(node["_target_"])).startswith(other := "lightning.pytorch."):
                ours = f"pytorch_lightning.{target.removeprefix(other)}"
                raise ConfigError(f"{key}._target_={target}: the trainer is that of pytorch_lightning: take {ours}.")
            kind = called_by(node, key, settings.allow)
            if inspect.isclass(kind):
                check_kind(key, kind)
        callback = expect(key, instantiate(node, key, settings.allow), pl.Callback)
        check_kind(key, type(callback))
        check_hooks(key, callback)
        made.append(callback)
    return made


def is_foreign(callback: pl.Callback) -> bool:
    """Whether a callback is not of our own, and may log by Lightning's loggers."""
    return not type(callback).__module__.startswith("trainer.")


def sees_chunks(callback: pl.Callback) -> bool:
    """Whether a callback that is not of our own acts at the ends of chunks."""
    own = (
        getattr(type(callback), hook) is not getattr(pl.Callback, hook) or hook in vars(callback) for hook in _CHUNKS
    )
    return is_foreign(callback) and any(own)


def check_kind(key: str, kind: type) -> None:
    """Refuse a callback of Lightning that a run replaces, or one that is built on it."""
    for base in kind.__mro__:
        if base.__module__.startswith(_HOMES) and base.__name__ in REPLACED:
            what = kind.__name__ if base is kind else f"{kind.__name__}, a {base.__name__},"
            raise ConfigError(f"{key}: {what} cannot be a callback here: {REPLACED[base.__name__]}.")


def check_hooks(key: str, callback: pl.Callback) -> None:
    """Refuse a callback with a hook that is never called."""
    for hook in NEVER_CALLED:
        own = getattr(type(callback), hook) is not getattr(pl.Callback, hook)
        if own or hook in vars(callback):
            raise ConfigError(
                f"{key}: {hook} of {type(callback).__name__} would never be called, because callbacks act between "
                "chunks of updates: use on_train_batch_end, measure=norms, or the hook of a LightningModule."
            )


def connect(callbacks: list[Any], task: Task, known: bool, fresh: bool) -> dict[str, str]:
    """Connect the callbacks to the scores that they watch; these scores, by the callbacks' settings.

    Refused where one is not computed, or is better in the other direction, as far as the scores are `known` before one
    batch is scored. `fresh`: those that stop a run begin to measure anew.
    """
    found = {}
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if monitor is None:
            continue
        name = f"{type(callback).__name__}.monitor"
        if known and not monitor.startswith("val/"):
            scores = ", ".join(f"val/{name}" for name in task.scored)
            raise ConfigError(f"{name}={monitor} is not computed: choose one of {scores}.")
        if known:
            task.check_monitor(type(callback).__name__, monitor, getattr(callback, "mode", None))
        if isinstance(callback, EarlyStopping):
            callback.connect(task, fresh)
        found[name] = callback.monitor
    return found
