"""The one formula: lr(t, group) = base_lr · scale · group_mult · warmup(t) · schedule(t) · plateau · backoff."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from trainer.lr.bounds import ConfigError, number, positive
from trainer.lr.hyper_schedule import HyperSchedule
from trainer.lr.schedule import Schedule
from trainer.lr.warmup import Warmup


@dataclass(frozen=True)
class LRPolicy:
    """The learning rate of every parameter group at every update, as a product of named factors.

    `groups` has the multiplier of each parameter group, `own` the schedules of groups that do not follow `schedule`,
    `hyper_schedules` the other hyper-parameters that change with the update. All are pure functions of `t`, so any
    update can be asked for in any order. Factors with a state are arguments: `plateau`, `backoff` (see
    `trainer.lr.backoff`), and under AdaScale `gain`, which multiplies `scale`. Under AdaScale `most_gain` is the
    largest gain, `t` counts scale-invariant iterations, and `adaptive` names the optimizers that divide by their second
    moments, for which no gain was derived.

    >>> from trainer.lr import Horizon, compose, no_warmup
    >>> warmup, schedule = compose(Horizon(100, 1), no_warmup, lambda horizon: lambda t: 0.5)
    >>> list(LRPolicy(0.1, 4.0, warmup, schedule).explain(7).items())[:5]
    [('base_lr', 0.1), ('scale', 4.0), ('group_mult', 1.0), ('warmup', 1.0), ('schedule', 0.5)]
    """

    base_lr: float
    scale: float
    warmup: Warmup
    schedule: Schedule
    groups: Mapping[str, float] = field(default_factory=lambda: {"all": 1.0})
    own: Mapping[str, Schedule] = field(default_factory=dict)
    hyper_schedules: Mapping[str, HyperSchedule] = field(default_factory=dict)
    most_gain: float | None = None
    adaptive: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positive("optimizer.lr", self.base_lr, "the learning rate scales each update; try 0.001 to 0.1.")
        positive("scale", self.scale, "the batch-size rule multiplies the learning rate by it.")
        for name, mult in self.groups.items():
            number(f"the multiplier of group {name}", mult, "give 0 to freeze, 1 to leave.", low=0.0)
            if not math.isfinite(self.base_lr * self.scale * mult):
                raise ConfigError(f"optimizer.lr={self.base_lr} times its factors is not finite: lower it.")
        for name in self.own:
            if name not in self.groups:
                raise ConfigError(f"group_schedule.{name}: there is no such group. Known: {', '.join(self.groups)}.")

    @property
    def peak_lr(self) -> float:
        """base_lr · scale: the learning rate of a group with multiplier 1 where warm-up and schedule are 1."""
        return self.base_lr * self.scale

    def explain(
        self, t: int, group: str | None = None, plateau: float = 1.0, gain: float = 1.0, backoff: float = 1.0
    ) -> dict[str, float]:
        """The factors at update `t` by name; their product, in this order, is `lr` to the bit."""
        name = next(iter(self.groups)) if group is None else group
        return {
            "base_lr": self.base_lr,
            "scale": self.scale * gain,
            "group_mult": self.groups[name],
            "warmup": self.warmup.factor(t),
            "schedule": self.schedule_of(name)(t),
            "plateau": plateau,
            "backoff": backoff,
        }

    def schedule_of(self, group: str) -> Schedule:
        """The schedule that a group follows."""
        return self.own.get(group, self.schedule)

    def lr(
        self, t: int, group: str | None = None, plateau: float = 1.0, gain: float = 1.0, backoff: float = 1.0
    ) -> float:
        """The learning rate of update `t` for `group` (the first one, where none is named)."""
        return math.prod(self.explain(t, group, plateau, gain, backoff).values())

    def lrs(self, t: int, plateau: float = 1.0, gain: float = 1.0, backoff: float = 1.0) -> list[float]:
        """The learning rates of update `t` for all groups, in their order; equal to `lr` to the bit."""
        if gain != 1.0 or backoff != 1.0:
            return [self.lr(t, name, plateau, gain, backoff) for name in self.groups]
        warmup, common = self.warmup.factor(t), self.schedule(t)
        if self.own:
            return [peak * warmup * (own(t) if own else common) * plateau for peak, own in self._group_curves]
        if warmup == plateau == 1.0:  # which change no product
            return [peak * common for peak, _ in self._group_curves]
        return [peak * warmup * common * plateau for peak, _ in self._group_curves]

    def values(self, t: int, plateau: float = 1.0) -> dict[str, list[float]]:
        """The other hyper-parameters of update `t`, each for all groups, or as one number for the whole run."""
        if not self.hyper_schedules:
            return {}
        shares = [self.warmup.factor(t) * self.schedule_of(name)(t) * plateau for name in self.groups]
        return {
            name: [one.rule(t, base, share) for base, share in zip(one.bases, shares)]
            for name, one in self.hyper_schedules.items()
        }

    @cached_property
    def _group_curves(self) -> list[tuple[float, Schedule | None]]:
        """Each group's peak, and its own schedule where it has one."""
        return [(self.peak_lr * mult, self.own.get(name)) for name, mult in self.groups.items()]
