"""Schedules of hyper-parameters other than the learning rate.

A rule is `value(t, base, share)`: `base` is the configured value (of a parameter group, where groups differ), `share`
is the learning rate of the update as a share of its peak, warmup(t) · schedule(t) · plateau.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from trainer.lr.bounds import LARGEST, ConfigError, number, positive
from trainer.lr.horizon import Horizon
from trainer.lr.schedule import Schedule

Rule = Callable[[int, float, float], float]


class HyperSchedule(NamedTuple):
    """A hyper-parameter that changes with the update; `bases` has a value for each group, or one for the run."""

    rule: Rule
    bases: Sequence[float]


BELOW_ONE = ("momentum", "beta1", "beta2", "dropout", "alpha")
AT_MOST_ONE = ("label_smoothing",)


def check_values(name: str, values: Sequence[float]) -> None:
    """Refuse values that a hyper-parameter of this name cannot have, naming the first update with one."""
    high = 1.0 if name in (*BELOW_ONE, *AT_MOST_ONE) else LARGEST
    if min(values) >= 0.0 and max(values) < high or (max(values) == high and name in AT_MOST_ONE):
        return
    limit = "below 1" if name in BELOW_ONE else "at most 1" if name in AT_MOST_ONE else "finite"
    for t, value in enumerate(values):
        if not 0.0 <= value <= high or (value == high and name not in AT_MOST_ONE):
            raise ConfigError(f"hyper_schedule.{name} is {value:.6g} at update {t}: it must be at least 0 and {limit}.")


def scheduled(horizon: Horizon, *, of: Callable[[Horizon], Schedule]) -> Rule:
    """v(t) = base · m(t), with any schedule m over the whole run.

    >>> scheduled(Horizon(10, 1), of=lambda horizon: lambda t: 0.5)(3, 0.1, 1.0)
    0.05
    """
    schedule = of(horizon)
    return lambda t, base, share: base * schedule(t)


def tied(horizon: Horizon) -> Rule:
    """v(t) = base · share(t): in proportion to the learning rate.

    For weight decay that is decoupled from the gradient: Schaipp 2024, "How to jointly tune learning rate and weight
    decay"; Defazio 2025, arXiv:2506.02285, where λ ∝ lr keeps the norm of the weights steady.

    >>> tied(Horizon(10, 1))(3, 0.1, 0.5)
    0.05
    """
    return lambda t, base, share: base * share


def mirrored(horizon: Horizon, *, swing: float = 0.05) -> Rule:
    """v(t) = base + swing · (1 - 2 share(t)): high where the learning rate is low, around the configured value.

    For momentum or β1: Smith 2018, arXiv:1803.09820, where momentum falls while the learning rate rises.

    >>> [round(mirrored(Horizon(10, 1))(0, 0.9, share), 3) for share in (0.0, 0.5, 1.0)]
    [0.95, 0.9, 0.85]
    """
    width = positive("swing", swing, "it is how far the value goes above and below the configured one.")
    return lambda t, base, share: base + width * (1.0 - 2.0 * share)


def coupled(horizon: Horizon, *, highest: float = 0.999) -> Rule:
    """v(t) = min(highest, 1 - (1 - base) · share(t)): keeps lr / (1 - v) at its value at the peak.

    lr / (1 - momentum) is the step length under a constant gradient; `highest` keeps the momentum away from 1 where
    the learning rate comes near 0.

    >>> round(coupled(Horizon(10, 1))(0, 0.9, 0.5), 3)
    0.95
    """
    limit = number("highest", highest, "momentum stays below 1: give a number from 0 to 0.99999.", 0.0, 0.99999)
    return lambda t, base, share: max(base, min(limit, 1.0 - (1.0 - base) * share))
