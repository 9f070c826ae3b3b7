"""The divergence guard of a run, and what it cannot be combined with."""

from typing import Any

from trainer.config.adascale_config import adascale_options
from trainer.config.instantiate import expect, instantiate
from trainer.config.resolve import Resolved
from trainer.config.settings import Settings
from trainer.lr import ConfigError
from trainer.lr.guard import Rollback, Skip, Stop


def guard_of(resolved: Resolved) -> Stop:
    """The rule of the guard. Raises `ConfigError` where the run cannot follow it."""
    settings = resolved.settings
    rule: Stop = expect("guard", instantiate(settings.guard, "guard", settings.allow), Stop)
    _check_data(rule, resolved)
    net: Any = resolved.model.net
    if isinstance(rule, Skip) and not getattr(net, "automatic_optimization", True):
        raise ConfigError(
            f"guard=skip: {type(net).__name__} steps its optimizers itself, and a step that is made cannot be left "
            "out: take guard=rollback or guard=stop."
        )
    if isinstance(rule, Rollback):
        _check_rollback(settings)
    _check_batch(resolved)
    return rule


def _check_data(rule: Stop, resolved: Resolved) -> None:
    leaves_out = isinstance(rule, Skip) or (isinstance(rule, Rollback) and rule.leave_out)
    train = getattr(getattr(resolved.data, "splits", None), "train", None)
    if leaves_out and train is not None and not hasattr(train, "home"):
        advice = "take guard=rollback guard.leave_out=false, or guard=stop"
        raise ConfigError(f"guard: the training data is streamed, and a batch of it cannot be left out: {advice}.")


def _check_rollback(settings: Settings) -> None:
    if settings.trainer.strategy == "fsdp":
        raise ConfigError(
            "guard=rollback loads whole weights while the run goes on, and with trainer.strategy=fsdp each process has "
            "its shard: take guard=skip, or guard=stop and then resume=auto."
        )
    if adascale_options(settings) is not None:
        raise ConfigError(
            "guard=rollback lowers the rate by its own factor, and with scaling=adascale the rate decides the length: "
            "take guard=skip or guard=stop."
        )


def _check_batch(resolved: Resolved) -> None:
    """Refuse another global batch for a run that has left batches out, whose positions count batches."""
    checkpoint = resolved.checkpoint
    if checkpoint is None or not checkpoint.saved.get("left_out"):
        return
    before, now = checkpoint.saved["batch_size"], resolved.horizon.batch_size
    if before != now:
        raise ConfigError(
            f"resume.path={checkpoint.path} has left out batches of {before} samples, and this run has batches of "
            f"{now}: keep the global batch, or start a new run."
        )
