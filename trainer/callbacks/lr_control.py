"""Writes the learning rate of every update from the policy, and proves that it was the one applied."""

from typing import Any

import pytorch_lightning as pl
from torch.optim import Optimizer

from trainer.lr import Policy


class LRControl(pl.Callback):
    """Writes `policy.lrs(t)` into the optimizer's parameter groups before update `t`.

    A hook inside `optimizer.step` reads what is really there: `applied` holds the rates of the last update, and a
    rate that differs from the policy stops the run with a RuntimeError that names the group.
    It also serves any LightningModule under automatic optimization: add it to the trainer's callbacks.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.names = list(policy.groups)
        self.applied: list[float] = []
        self._planned: list[float] = []

    def write(self, optimizer: Optimizer, t: int) -> None:
        """Set the learning rate of each group to the policy's at update `t`."""
        self._planned = self.policy.lrs(t)
        for group, lr in zip(optimizer.param_groups, self._planned, strict=True):
            group["lr"] = lr

    def watch(self, optimizer: Optimizer) -> None:
        """Read the learning rates of `optimizer` before each of its steps from now on."""
        optimizer.register_step_pre_hook(self._prove)

    def _prove(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.applied = [group["lr"] for group in optimizer.param_groups]
        if self.applied != self._planned:
            raise RuntimeError(self._complaint())

    def _complaint(self) -> str:
        if not self._planned:
            return "an optimizer step was made before the policy wrote a learning rate."
        wrong = [
            f"group {name} has lr={applied!r} where the policy says {planned!r}"
            for name, applied, planned in zip(self.names, self.applied, self._planned, strict=True)
            if applied != planned
        ]
        return f"{'; '.join(wrong)}: something else writes the learning rate, such as a scheduler or a callback."

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not pl_module.automatic_optimization:
            raise ValueError(
                f"{type(pl_module).__name__} optimizes by hand, so that no hook comes before its step: "
                "call LRControl.write(optimizer, t) before each optimizer.step() instead of adding it as a callback."
            )
        for optimizer in trainer.optimizers:
            if len(optimizer.param_groups) != len(self.names):
                raise ValueError(
                    f"the policy knows the groups {', '.join(self.names)}, "
                    f"but the optimizer has {len(optimizer.param_groups)}: name each group in the policy."
                )
            # Under automatic optimization the rate is written inside the step, after the backward pass.
            optimizer.register_step_post_hook(self._prove)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self.write(optimizer, trainer.global_step)
