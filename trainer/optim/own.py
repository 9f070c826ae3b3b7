"""What a group's own optimizer brings with it: its learning rate and its weight decay."""

import inspect
from typing import Any

from trainer.lr.bounds import positive
from trainer.optim.groups import Make


def own_mult(optimizer: Make, lr: float, whose: str) -> float:
    """The multiplier that makes the optimizer's own lr of the run's `lr`; 1 where it has none."""
    mine = _setting(optimizer, "lr")
    return 1.0 if mine is None else positive(f"{whose}: optimizer.lr", mine, "it is the peak of the group.") / lr


def own_decay(optimizer: Make) -> float | None:
    """The weight decay that the optimizer is given, or else has by default; None where it knows of none."""
    return _setting(optimizer, "weight_decay")


def _setting(optimizer: Make, name: str) -> Any:
    """What a call of `optimizer` uses for `name`."""
    parameter = inspect.signature(optimizer).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default
