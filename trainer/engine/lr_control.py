"""Writes the learning rate and every other scheduled value of an update, and verifies that they were applied."""

import json
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from trainer.files.atomic import write_text
from trainer.lr import ConfigError, LRPolicy, Plan
from trainer.lr.backoff import Backoff, backoff
from trainer.lr.grow import BATCH
from trainer.optim.policy_groups import aligned, check_settings, read_setting, write_setting

AttributeSetter = Callable[[float], None]
"""Sets one scheduled setting of the whole run."""


class LRControl(pl.Callback):
    """Writes `policy.lrs(t)` into the optimizer's parameter groups before update `t`, and every other scheduled value.

    A hook inside `optimizer.step` reads the values in the parameter groups: `applied` holds the rates of the last
    update, and a value that differs from the policy stops the run with a RuntimeError that names the group.
    As a callback it does the same in your own trainer, with any LightningModule under automatic optimization, of
    `pytorch_lightning` or `lightning.pytorch`. It then also logs the applied rate of every update as `lr/GROUP`. With
    the `plan` of the policy it writes `plan.json` into the log folder, and after the plan's last update it keeps the
    last rate and warns once.

    `plateau` is the current plateau factor, `gain` that of AdaScale; `backoff` follows from `t` and the `rollbacks`.
    `place` holds `t` and the gain of the last update.
    `setters` set hyper-parameters outside the parameter groups, such as dropout: see `attribute_setters`.
    """

    def __init__(
        self, policy: LRPolicy, setters: dict[str, AttributeSetter] | None = None, plan: Plan | None = None
    ) -> None:
        self.policy, self.plan = policy, plan
        self._given = policy
        self.names = list(policy.groups)
        self.plateau = self.gain = self.backoff = 1.0
        self.rollbacks: Sequence[Backoff] = ()
        self.place: tuple[int | list[int], float] = (0, 1.0)
        self.setters = setters or {}
        self.applied: list[float] = []
        self.values: dict[str, list[float]] = {}
        self._planned: list[float] = []
        self._unlogged: int | None = None
        self._over = False

    def write(self, optimizer: Optimizer, t: int) -> None:
        """Set the learning rate and the other scheduled values of each group to the policy's at update `t`."""
        self.backoff = backoff(t, self.rollbacks)
        self.place, self._planned = (t, self.gain), self.policy.lrs(t, self.plateau, self.gain, self.backoff)
        for group, lr in zip(optimizer.param_groups, self._planned, strict=True):
            group["lr"] = lr
        if self.policy.hyper_schedules:
            for name, values in self.values.items():
                if name not in self.setters:
                    for group, value in zip(optimizer.param_groups, values, strict=True):
                        write_setting(group, name, value)

    def evaluate(self, t: int) -> None:
        """Compute the other scheduled values of update `t`, and set those of the whole run."""
        self.values = self.policy.values(t, self.plateau * backoff(t, self.rollbacks))
        for name, setter in self.setters.items():
            if name in self.values:
                setter(self.values[name][0])

    def reset(self) -> None:
        """Set the settings of the whole run back to their configured values, for validation and test."""
        for name, setter in self.setters.items():
            setter(self.policy.hyper_schedules[name].bases[0])

    def overwritten(self, optimizer: Optimizer) -> str:
        """Which rate something else has written since `write`; empty where none has."""
        found = [group["lr"] for group in optimizer.param_groups]
        return "" if found == self._planned else self.mismatch("lr", found, self._planned)

    def attach(self, optimizer: Optimizer) -> None:
        """Verify the values of `optimizer` before each of its steps from now on."""
        optimizer.register_step_pre_hook(self.verify)

    def verify(self, optimizer: Optimizer, args: Any = (), kwargs: Any = None) -> None:
        """Note the rates in the parameter groups as applied. RuntimeError where a value is not that of the policy."""
        self.applied = [group["lr"] for group in optimizer.param_groups]
        if self.applied != self._planned:
            raise RuntimeError(self.mismatch("lr", self.applied, self._planned))
        for name, values in self.values.items():
            if name not in self.setters:
                found = [read_setting(group, name) for group in optimizer.param_groups]
                if found != values:
                    raise RuntimeError(self.mismatch(name, found, values))

    def mismatch(self, what: str, found: list[float], planned: list[float]) -> str:
        """Which group has found another value than the planned one, in one line."""
        if not planned:
            return "an optimizer step was made before the policy wrote a learning rate."
        wrong = [
            f"group {name} has {what}={applied!r} where the policy says {right!r}"
            for name, applied, right in zip(self.names, found, planned, strict=True)
            if applied != right
        ]
        return f"{'; '.join(wrong)}: remove what else writes it, such as a scheduler or a callback."

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        optimizer = _only_optimizer(trainer, pl_module)
        self.policy = aligned(self._given, optimizer.param_groups)
        self.names = list(self.policy.groups)
        check_settings(self.policy, optimizer, self.setters)
        # Under automatic optimization the rate is written inside the step, after the backward pass.
        optimizer.register_step_post_hook(self.verify)
        if trainer.is_global_zero:
            _warn_of_schedulers(trainer, pl_module)
        if self.plan is not None and trainer.loggers:
            folder = trainer.log_dir  # all processes ask for it
            if folder is not None and trainer.is_global_zero:
                _write_plan(Path(folder), self.plan)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        t = trainer.global_step
        if self.plan is not None and t >= (total := self.plan.horizon.total):
            if not self._over and trainer.is_global_zero:
                last = ", ".join(f"{lr:g}" for lr in self.policy.lrs(total - 1, self.plateau))
                warnings.warn(
                    f"the plan's {total} updates are over: from here on the rate stays at {last}, that of its last "
                    "update. Plan as many updates as the trainer makes.",
                    stacklevel=2,
                )
            t, self._over = total - 1, True
        self.evaluate(t)
        self.write(optimizer, t)
        self._unlogged = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the values of the update that this batch has completed, if it has completed one."""
        if self._unlogged is None:
            return
        values = {f"lr/{name}": lr for name, lr in zip(self.names, self.applied, strict=True)}
        for setting, found in self.values.items():
            names = [f"{name}/{setting}" for name in self.names] if len(found) > 1 else [setting]
            values |= {f"hyper_schedule/{name}": value for name, value in zip(names, found)}
        for logger in trainer.loggers:
            logger.log_metrics(values, self._unlogged)
        self._unlogged = None


def _only_optimizer(trainer: pl.Trainer, module: pl.LightningModule) -> Optimizer:
    """The one optimizer that Lightning steps by itself."""
    name, count = type(module).__name__, len(trainer.optimizers)
    if not module.automatic_optimization or count > 1:
        several = f" with {count} optimizers" if count > 1 else ""
        raise ConfigError(
            f"{name} uses manual optimization{several}, where no hook runs before the step: take the callback out, and "
            "give each optimizer a scheduler by plan.scheduler(optimizer), or call LRControl.write(optimizer, t) "
            "before each optimizer.step()."
        )
    if not count:
        raise ConfigError(f"{name}.configure_optimizers returns no optimizer: the policy has no rate to set.")
    return trainer.optimizers[0]


def _warn_of_schedulers(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Name the schedulers of the module: they write the rate after each update, and the policy before the next."""
    found = [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs]
    if found:
        warnings.warn(
            f"{', '.join(found)} of {type(module).__name__}.configure_optimizers has no effect: LRControl sets the "
            "rate of every update. Return the optimizer alone.",
            stacklevel=3,
        )


def _write_plan(folder: Path, plan: Plan) -> None:
    """Write the numbers of the plan into the log folder."""
    write_text(folder / "plan.json", json.dumps(plan.summary(), indent=2) + "\n")


def attribute_setters(policy: LRPolicy, net: nn.Module, step: object) -> dict[str, AttributeSetter]:
    """A setter for each scheduled setting of the whole run; `ConfigError` where the run has no such setting.

    The setters of the batch and of gradient noise do nothing: the data makes the batch, and the update reads σ from
    `LRControl.values`. Label smoothing is that of the step's loss.
    """
    loss = getattr(step, "loss", step)
    setters: dict[str, AttributeSetter] = {}
    if "dropout" in policy.hyper_schedules:
        if net._compiled_call_impl is not None:
            raise ConfigError(
                "hyper_schedule.dropout: with trainer.compile=true each rate of dropout compiles the net anew, and "
                "torch gives up after eight: leave one of the two out."
            )
        setters["dropout"] = _dropout_setter(net, policy.hyper_schedules["dropout"].bases[0])
    if "label_smoothing" in policy.hyper_schedules:
        if not hasattr(loss, "label_smoothing"):
            raise ConfigError(
                f"hyper_schedule.label_smoothing: {type(loss).__name__} has none: choose another task.loss."
            )
        setters["label_smoothing"] = lambda value: setattr(loss, "label_smoothing", value)
    for key in policy.hyper_schedules:
        kind, _, name = key.partition(".")
        if kind == "loss_weights" and name:
            factors: dict[str, float] = getattr(step, kind)
            setters[key] = partial(factors.__setitem__, name)
    for name in (BATCH, "gradient_noise"):
        if name in policy.hyper_schedules:
            setters[name] = lambda value: None
    return setters


def _dropout_setter(net: nn.Module, rate: float) -> AttributeSetter:
    """Sets every dropout of `net` that has this rate: of layers, and of attention and recurrent modules."""
    layers = [module for module in net.modules() if isinstance(module, _DropoutNd) and module.p == rate]
    others = [module for module in net.modules() if getattr(module, "dropout", None) == rate]
    if not layers and not others:
        raise ConfigError(
            f"hyper_schedule.dropout: {type(net).__name__} has no dropout of {rate}: set model.dropout above zero."
        )

    def set_dropout(value: float) -> None:
        for layer in layers:
            layer.p = value
        for module in others:
            setattr(module, "dropout", value)  # noqa: B010 - a module's attributes are not typed as numbers

    return set_dropout
