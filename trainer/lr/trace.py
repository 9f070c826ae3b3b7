"""Every value of a policy over a run, each function evaluated once per update; and a curve in five numbers."""

import math
from array import array
from operator import mul
from typing import NamedTuple

from trainer.lr.bounds import LARGEST, ConfigError
from trainer.lr.policy import LRPolicy
from trainer.lr.schedule import values

RUN = "run"
"""In place of a group's name: a hyper-parameter that has one value for the whole run."""
_CHUNK = 1 << 10
"""Updates at a time: few enough that their numbers stay in the cache of the processor."""

Values = array


class Course(NamedTuple):
    """A curve in five numbers; `area` is its sum over the run."""

    first: float
    peak: float
    peak_update: int
    last: float
    area: float


class Trace(NamedTuple):
    """The learning rates of each group, with the lowest and highest, and the scheduled values by group, to T-1."""

    rates: dict[str, Values]
    bounds: dict[str, tuple[float, float]]
    hyper_schedules: dict[str, dict[str, Values]]


def traced(policy: LRPolicy, total: int) -> Trace:
    """`policy.lrs(t)` and `policy.values(t)` over `total` updates, to the bit.

    Groups with the same multiplier and schedule share one curve.
    """
    schedules = {id(made): made for made in map(policy.schedule_of, policy.groups)}
    home = {name: (policy.peak_lr * mult, id(policy.schedule_of(name))) for name, mult in policy.groups.items()}
    curves = {place: array("d") for place in home.values()}
    bounds = dict.fromkeys(curves, (math.inf, -math.inf))
    hyper_schedules = {
        name: {group: array("d") for group in _groups_with(policy, name)} for name in policy.hyper_schedules
    }
    for begin in range(0, total, _CHUNK):
        ts = range(begin, min(begin + _CHUNK, total))
        rise = values(policy.warmup.factor, ts)
        falls = {key: values(schedule, ts) for key, schedule in schedules.items()}
        risen = rise.count(1.0) == len(rise)
        limits = {key: (min(fall), max(fall)) for key, fall in falls.items() if risen}
        for (peak, key), curve in curves.items():
            if risen:  # a product with 1 is exact, and one with the peak keeps the order
                rates = [peak * m for m in falls[key]]
                low, high = (peak * limit for limit in limits[key])
            else:
                rates = [peak * w * m for w, m in zip(rise, falls[key])]
                low, high = min(rates), max(rates)
            curve.fromlist(rates)
            bounds[peak, key] = (min(bounds[peak, key][0], low), max(bounds[peak, key][1], high))
        if hyper_schedules:
            shares = {key: list(map(mul, rise, fall)) for key, fall in falls.items()}
            _extend(policy, hyper_schedules, ts, [shares[key] for _, key in home.values()])
    return Trace(
        {name: curves[place] for name, place in home.items()},
        {name: bounds[place] for name, place in home.items()},
        hyper_schedules,
    )


def course(group: str, curve: Values, low: float, high: float) -> Course:
    """First, highest and last value of a curve, and their sum; refused where a rate is negative or not finite.

    `low` and `high` are the lowest and the highest; where a rate is not a number, they may be others.
    """
    area = math.fsum(curve) if high <= LARGEST else math.nan
    if not (low >= 0.0 and area <= math.inf):
        for t, lr in enumerate(curve):
            if not 0.0 <= lr <= LARGEST:
                what = f"the learning rate of group {group} is {lr} at update {t}"
                raise ConfigError(f"{what}: it must be finite and not negative.")
    return Course(curve[0], high, curve.index(high), curve[-1], area)


def _groups_with(policy: LRPolicy, name: str) -> list[str]:
    """The groups that have values of a hyper-parameter, or `RUN`."""
    return list(policy.groups) if len(policy.hyper_schedules[name].bases) >= len(policy.groups) else [RUN]


def _extend(
    policy: LRPolicy, hyper_schedules: dict[str, dict[str, Values]], ts: range, shares: list[list[float]]
) -> None:
    for name, (rule, bases) in policy.hyper_schedules.items():
        for base, share, curve in zip(bases, shares, hyper_schedules[name].values()):
            curve.fromlist([rule(t, base, s) for t, s in zip(ts, share)])
