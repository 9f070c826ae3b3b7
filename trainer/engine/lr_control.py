"""Writes the learning rate and every other scheduled value of an update, and verifies that they were applied."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer

from trainer.lr import ConfigError, LRPolicy
from trainer.lr.grow import BATCH

AttributeSetter = Callable[[float], None]
"""Sets one scheduled setting of the whole run."""


class LRControl(pl.Callback):
    """Writes `policy.lrs(t)` into the optimizer's parameter groups before update `t`, and every other scheduled value.

    A hook inside `optimizer.step` reads the values in the parameter groups: `applied` holds the rates of the last
    update, and a value that differs from the policy stops the run with a RuntimeError that names the group.
    It also works with any LightningModule under automatic optimization: add it to the trainer's callbacks.

    `plateau` is the current plateau factor, `gain` that of AdaScale; `place` holds `t` and the gain of the last update.
    `setters` set hyper-parameters outside the parameter groups, such as dropout: see `attribute_setters`.
    """

    def __init__(self, policy: LRPolicy, setters: dict[str, AttributeSetter] | None = None) -> None:
        self.policy = policy
        self.names = list(policy.groups)
        self.plateau = self.gain = 1.0
        self.place = (0, 1.0)
        self.setters = setters or {}
        self.applied: list[float] = []
        self.values: dict[str, list[float]] = {}
        self._planned: list[float] = []

    def write(self, optimizer: Optimizer, t: int) -> None:
        """Set the learning rate and the other scheduled values of each group to the policy's at update `t`."""
        self.place, self._planned = (t, self.gain), self.policy.lrs(t, self.plateau, self.gain)
        for group, lr in zip(optimizer.param_groups, self._planned, strict=True):
            group["lr"] = lr
        if self.policy.hyper_schedules:
            for name, values in self.values.items():
                if name not in self.setters:
                    for group, value in zip(optimizer.param_groups, values, strict=True):
                        write_setting(group, name, value)

    def evaluate(self, t: int) -> None:
        """Compute the other scheduled values of update `t`, and set those of the whole run."""
        self.values = self.policy.values(t, self.plateau)
        for name, setter in self.setters.items():
            if name in self.values:
                setter(self.values[name][0])

    def reset(self) -> None:
        """Set the settings of the whole run back to their configured values, for validation and test."""
        for name, setter in self.setters.items():
            setter(self.policy.hyper_schedules[name].bases[0])

    def attach(self, optimizer: Optimizer) -> None:
        """Verify the values of `optimizer` before each of its steps from now on."""
        optimizer.register_step_pre_hook(self._verify)

    def _verify(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.applied = [group["lr"] for group in optimizer.param_groups]
        if self.applied != self._planned:
            raise RuntimeError(self._mismatch("lr", self.applied, self._planned))
        for name, values in self.values.items():
            if name not in self.setters:
                found = [read_setting(group, name) for group in optimizer.param_groups]
                if found != values:
                    raise RuntimeError(self._mismatch(name, found, values))

    def _mismatch(self, what: str, found: list[float], planned: list[float]) -> str:
        if not planned:
            return "an optimizer step was made before the policy wrote a learning rate."
        wrong = [
            f"group {name} has {what}={applied!r} where the policy says {right!r}"
            for name, applied, right in zip(self.names, found, planned, strict=True)
            if applied != right
        ]
        return f"{'; '.join(wrong)}: remove what else writes it, such as a scheduler or a callback."

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not pl_module.automatic_optimization:
            raise ValueError(
                f"{type(pl_module).__name__} uses manual optimization, where no hook runs before the step: "
                "call LRControl.write(optimizer, t) before each optimizer.step() instead of adding it as a callback."
            )
        for optimizer in trainer.optimizers:
            if len(optimizer.param_groups) != len(self.names):
                raise ValueError(
                    f"the policy knows the groups {', '.join(self.names)}, "
                    f"but the optimizer has {len(optimizer.param_groups)}: name each group in the policy."
                )
            # Under automatic optimization the rate is written inside the step, after the backward pass.
            optimizer.register_step_post_hook(self._verify)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self.evaluate(trainer.global_step)
        self.write(optimizer, trainer.global_step)


def read_setting(group: dict[str, Any], name: str) -> float:
    """A setting of a parameter group; `momentum` is β1 where the optimizer has betas."""
    if name in group:
        return group[name]
    return group["betas"][1 if name == "beta2" else 0]


def write_setting(group: dict[str, Any], name: str, value: float) -> None:
    """Set what `read_setting` reads."""
    if name in group:
        group[name] = value
    elif name == "beta2":
        group["betas"] = (group["betas"][0], value)
    else:
        group["betas"] = (value, group["betas"][1])


def attribute_setters(policy: LRPolicy, net: nn.Module, step: object) -> dict[str, AttributeSetter]:
    """A setter for each scheduled setting of the whole run; `ConfigError` where the run has no such setting.

    The setters of the batch and of gradient noise do nothing: the data makes the batch, and the update reads σ from
    `LRControl.values`. Label smoothing is that of the step's loss.
    """
    loss = getattr(step, "loss", step)
    setters: dict[str, AttributeSetter] = {}
    if "dropout" in policy.hyper_schedules:
        setters["dropout"] = _dropout_setter(net, policy.hyper_schedules["dropout"].bases[0])
    if "label_smoothing" in policy.hyper_schedules:
        if not hasattr(loss, "label_smoothing"):
            raise ConfigError(
                f"hyper_schedule.label_smoothing: {type(loss).__name__} has none: choose another task.loss."
            )
        setters["label_smoothing"] = lambda value: setattr(loss, "label_smoothing", value)
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
