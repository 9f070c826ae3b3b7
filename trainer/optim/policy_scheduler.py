"""A learning-rate policy as a scheduler of torch, for loops that are not ours."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainer.lr import ConfigError, LRPolicy
from trainer.optim.policy_groups import aligned, check_settings, read_setting, write_setting

_ATTRIBUTE = "_policy_scheduler"


class PolicyScheduler(LRScheduler):
    """Gives update t of `optimizer` the learning rates `policy.lrs(t)`, to the bit, and its other scheduled settings.

    t counts the steps that the optimizer has made: `last_epoch` is that number. It does not matter how often `step` is
    called, because hooks in the optimizer count and write. So the rates are right where gradients are accumulated,
    where a gradient scaler skips a step, and under Accelerate, which calls `step` once per process. A step whose
    rates something else has changed stops with a RuntimeError that names the group.

    After the `updates` of the plan the last planned rates stay; a warning says so once. An optimizer has one such
    scheduler, the one made last. `start` is the number of updates made before.

    Raises `ConfigError` for a policy that does not fit the parameter groups (see `aligned`), for a scheduled setting
    that they do not have, and for AdaScale, whose gain is measured in gradients.
    """

    def __init__(self, optimizer: Optimizer, policy: LRPolicy, updates: int | None = None, start: int = 0) -> None:
        while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
            optimizer = inner  # of a wrapper, such as Accelerate's, whose own step the hooks would not see
        if policy.most_gain is not None:
            raise ConfigError("scaling=adascale: the rate follows from measured gradients: take another rule here.")
        self.policy = aligned(policy, optimizer.param_groups)
        check_settings(self.policy, optimizer)
        self.updates, self.start = updates, start
        self._planned: dict[str, list[float]] = {}
        self._over = False
        _detach_earlier(optimizer)
        super().__init__(optimizer)
        self._handles = [
            optimizer.register_step_pre_hook(lambda *_: self._verify()),
            optimizer.register_step_post_hook(lambda *_: self._count()),
        ]
        optimizer.__dict__[_ATTRIBUTE] = self

    def _initial_step(self) -> None:
        self.last_epoch, self._step_count = self.start, 1
        self.step()

    def step(self, epoch: int | None = None) -> None:
        """Write the values of the next update once more; the number of calls does not matter."""
        self._planned = self._values()
        for name, values in self._planned.items():
            for group, value in zip(self.optimizer.param_groups, values, strict=True):
                write_setting(group, name, value)
        self._last_lr = list(self._planned["lr"])

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of the next update for each parameter group."""
        return list(self._values()["lr"])

    def state_dict(self) -> dict[str, Any]:
        """The updates made, and the rates of the next one, by which another curve is recognised."""
        return {"last_epoch": self.last_epoch, "_last_lr": list(self._last_lr)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on after as many updates. Raises `ConfigError` for the state of another curve."""
        before, self.last_epoch = self.last_epoch, state_dict["last_epoch"]
        planned = self.get_lr()
        if planned != state_dict["_last_lr"]:
            t, self.last_epoch = self.last_epoch, before
            raise ConfigError(
                f"this state is of another curve: at update {t} it has the rates {state_dict['_last_lr']}, and the "
                f"plan {planned}: keep the plan, or start the new one there with plan.scheduler(optimizer, start={t})."
            )
        self.step()

    def detach(self) -> None:
        """Leave the optimizer alone from now on."""
        for handle in self._handles:
            handle.remove()

    def _values(self) -> dict[str, list[float]]:
        t = self.last_epoch if self.updates is None else min(self.last_epoch, self.updates - 1)
        return {"lr": self.policy.lrs(t), **self.policy.values(t)}

    def _verify(self) -> None:
        for name, planned in self._planned.items():
            found = [read_setting(group, name) for group in self.optimizer.param_groups]
            for group, value, right in zip(self.policy.groups, found, planned):
                if not _equal(value, right):
                    raise RuntimeError(
                        f"group {group} has {name}={float(value)!r} where the plan says {right!r} at update "
                        f"{self.last_epoch}: remove what else writes it, and load the scheduler's state together with "
                        "the optimizer's."
                    )
        if self.updates is not None and self.last_epoch >= self.updates and not self._over:
            self._over = True
            warnings.warn(
                f"the plan's {self.updates} updates are over: from here on the rate stays at "
                f"{', '.join(f'{lr:g}' for lr in self._planned['lr'])}, that of its last update.",
                stacklevel=4,
            )

    def _count(self) -> None:
        self.last_epoch += 1
        self.step()


def _detach_earlier(optimizer: Optimizer) -> None:
    earlier = optimizer.__dict__.pop(_ATTRIBUTE, None)
    if earlier is not None:
        earlier.detach()


def _equal(value: Any, planned: float) -> bool:
    """Whether a setting is the planned one; a tensor holds it in its own precision."""
    return bool(value == (value.new_tensor(planned) if isinstance(value, Tensor) else planned))
