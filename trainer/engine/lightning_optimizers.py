"""The optimizers that a LightningModule makes in `configure_optimizers`, and their parameter groups."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from trainer.engine.lightning_kind import SCHEDULER, overrides
from trainer.lr import ConfigError
from trainer.lr.bounds import positive
from trainer.optim.composite import Composite
from trainer.optim.groups import Group


def optimizers_of(net: nn.Module, ignore: Sequence[str] = ()) -> tuple[list[Optimizer], list[Any]]:
    """New optimizers as the module makes them, and its schedulers, which are refused unless they are in `ignore`.

    A scheduler changes rates when it is made: each group gets the rate that it had before.
    """
    kind = type(net).__name__
    if not overrides(net, "configure_optimizers"):
        raise ConfigError(f"optimizer=module: {kind} has no configure_optimizers: choose another optimizer.")
    found: Any = net
    optimizers, schedulers = _parted(found.configure_optimizers())
    if not optimizers or not all(isinstance(one, Optimizer) for one in optimizers):
        raise ConfigError(f"optimizer=module: configure_optimizers of {kind} gives no optimizer: choose another one.")
    if lbfgs := [one for one in optimizers if isinstance(one, LBFGS)]:
        raise ConfigError(f"optimizer=module: {type(lbfgs[0]).__name__} evaluates the loss itself: choose another one.")
    if schedulers and SCHEDULER not in ignore:
        raise ConfigError(
            f"model: configure_optimizers of {kind} gives a {type(schedulers[0]).__name__}, and the policy sets the "
            f"rates: choose schedule and warmup, and leave it out by task.step.ignore=[{SCHEDULER}]."
        )
    for group in (group for one in optimizers for group in one.param_groups):
        group["lr"] = float(group.pop("initial_lr", group["lr"]))
    return optimizers, schedulers


def _parted(given: Any) -> tuple[list[Any], list[Any]]:
    """Optimizers and schedulers from any of the forms that Lightning takes."""
    if isinstance(given, Optimizer):
        return [given], []
    if isinstance(given, Mapping):
        return [given.get("optimizer")], _schedulers([given.get("lr_scheduler")])
    if not isinstance(given, list | tuple):
        return [], []
    if len(given) == 2 and isinstance(given[0], list):
        optimizers, schedulers = given
        return list(optimizers), _schedulers(schedulers if isinstance(schedulers, list | tuple) else [schedulers])
    if all(isinstance(one, Mapping) for one in given):
        return [one.get("optimizer") for one in given], _schedulers([one.get("lr_scheduler") for one in given])
    return list(given), []


def _schedulers(given: Sequence[Any]) -> list[Any]:
    found = [one.get("scheduler") if isinstance(one, Mapping) else one for one in given]
    return [one for one in found if one is not None]


def named_groups(optimizers: Mapping[str, Optimizer], rates: Mapping[str, float]) -> list[Group]:
    """The parameter groups of all optimizers, named, with their rates over that of the first one.

    `optimizers` has the name of each; that of a single one may be empty. Their groups have it, and a number where there
    are several. `rates` are the rates of first groups that the config sets; the others of theirs keep their ratio.
    """
    found: list[Group] = []
    base = 0.0
    for name, optimizer in optimizers.items():
        first = optimizer.param_groups[0]["lr"]
        wanted = rates.get(name, first)
        base = base or positive("the learning rate of the module's optimizer", wanted, "set optimizer.lr.")
        for i, group in enumerate(optimizer.param_groups):
            word = _name(name, i, group, len(optimizer.param_groups))
            lr = wanted if i == 0 else group["lr"] * _ratio(wanted, first) if wanted != first else group["lr"]
            group["name"] = word
            found.append(Group(word, list(group["params"]), group.get("weight_decay"), _ratio(lr, base)))
    for i, one in enumerate(found):
        if not one.parameters or one.name in [other.name for other in found[:i]]:
            raise ConfigError(f"groups: {one.name} of the module is empty, or its name is not unique: give another.")
    return found


def _name(optimizer: str, i: int, group: Mapping[str, Any], count: int) -> str:
    own = group.get("name")
    if own is not None and not optimizer:
        return str(own)
    return (optimizer or "all") if count == 1 else f"{optimizer or 'group'}_{i if own is None else own}"


def _ratio(rate: float, base: float) -> float:
    """rate / base, so that base times it is `rate` to the bit where a number near it allows that."""
    ratio = rate / base
    near = (ratio, math.nextafter(ratio, math.inf), math.nextafter(ratio, 0.0))
    return next((one for one in near if base * one == rate), ratio)


def joined(optimizers: Sequence[Optimizer]) -> Optimizer:
    """One optimizer for all groups: itself, or a `Composite`."""
    if len(optimizers) == 1:
        return optimizers[0]
    order = [(i, j) for i, one in enumerate(optimizers) for j in range(len(one.param_groups))]
    return Composite(optimizers, order)
