"""The one formula: lr(t, group) = base_lr · scale · group_mult · warmup(t) · schedule(t)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trainer.lr.bounds import Refusal, number, positive
from trainer.lr.horizon import Horizon
from trainer.lr.schedule import Schedule
from trainer.lr.warmup import Warmup

COMPOSITIONS = ("prefix", "overlay")


@dataclass(frozen=True)
class Policy:
    """The learning rate of every parameter group at every update, as a product of named factors.

    `groups` names the parameter groups and their multipliers. Everything is a pure function of `t`, so any
    update can be asked for in any order: nothing is kept between two calls.

    >>> from trainer.lr import no_warmup
    >>> warmup, schedule = compose(Horizon(100, 1), no_warmup, lambda horizon: lambda t: 0.5)
    >>> Policy(0.1, 4.0, warmup, schedule).explain(7)
    {'base_lr': 0.1, 'scale': 4.0, 'group_mult': 1.0, 'warmup': 1.0, 'schedule': 0.5}
    """

    base_lr: float
    scale: float
    warmup: Warmup
    schedule: Schedule
    groups: Mapping[str, float] = field(default_factory=lambda: {"all": 1.0})

    def __post_init__(self) -> None:
        positive("optimizer.lr", self.base_lr, "the learning rate scales each update; try 0.001 to 0.1.")
        positive("scale", self.scale, "the batch-size rule multiplies the learning rate by it.")
        for name, mult in self.groups.items():
            number(f"the multiplier of group {name}", mult, "give 0 to freeze, 1 to leave.", low=0.0)
            if not math.isfinite(self.base_lr * self.scale * mult):
                raise Refusal(f"optimizer.lr={self.base_lr} times its factors is not finite: lower it.")

    @property
    def peak_lr(self) -> float:
        """base_lr · scale: the learning rate of a group with multiplier 1 where warm-up and schedule are 1."""
        return self.base_lr * self.scale

    def explain(self, t: int, group: str | None = None) -> dict[str, float]:
        """The factors at update `t` by name; their product, in this order, is `lr(t, group)` to the bit."""
        return {
            "base_lr": self.base_lr,
            "scale": self.scale,
            "group_mult": self.groups[group] if group is not None else next(iter(self.groups.values())),
            "warmup": self.warmup.factor(t),
            "schedule": self.schedule(t),
        }

    def lr(self, t: int, group: str | None = None) -> float:
        """The learning rate of update `t` for `group` (the first one, where none is named)."""
        return math.prod(self.explain(t, group).values())

    def lrs(self, t: int) -> list[float]:
        """The learning rates of update `t` for all groups, in their order; equal to `lr` to the bit."""
        warmup, schedule, peak = self.warmup.factor(t), self.schedule(t), self.peak_lr
        return [peak * mult * warmup * schedule for mult in self.groups.values()]


def compose(
    horizon: Horizon,
    warmup: Callable[[Horizon], Warmup],
    schedule: Callable[[Horizon], Schedule],
    composition: str = "prefix",
) -> tuple[Warmup, Schedule]:
    """Warm-up and schedule over one run, as functions of the run's `t`.

    prefix: the warm-up comes first and the schedule has the rest: schedule(max(t - W, 0)) over T - W updates.
    overlay: the schedule spans the whole run and the warm-up multiplies it.
    """
    if composition not in COMPOSITIONS:
        raise Refusal(f"composition={composition!r} is not known: choose one of {', '.join(COMPOSITIONS)}.")
    rise = warmup(horizon)
    taken = rise.updates if composition == "prefix" else 0
    if rise.updates >= horizon.span:
        raise Refusal(
            f"the warm-up of {rise.updates} updates leaves nothing of a run of {horizon.span}: "
            "shorten warmup.duration or lengthen trainer.duration."
        )
    fall = schedule(horizon.after(taken))
    return rise, (lambda t: fall(max(t - taken, 0))) if taken else fall
