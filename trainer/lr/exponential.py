"""Exponential and inverse-time decays."""

import math
from bisect import bisect_left
from collections.abc import Callable

from trainer.lr.bounds import ConfigError, fraction, positive, positive_share
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import FLOOR, Schedule, annotate, annotations
from trainer.lr.stairs import stairs_of

Curve = Callable[[float], float]
"""A decay from 1 at 0, as a function of the time gone."""


def exponential(horizon: Horizon, *, gamma: float = 0.9999, floor: float = 0.0) -> Schedule:
    """m(t) = max(floor, gamma^t): exponential decay; `gamma` is per update.

    The last value depends on the length of the run; `final_exponential` is given the last value instead.

    >>> [exponential(Horizon(10, 1), gamma=0.5)(t) for t in (0, 1, 3)]
    [1.0, 0.5, 0.125]
    """
    ratio = positive_share("gamma", gamma, "each update multiplies the learning rate by it.")
    return _floored(lambda t: ratio**t, horizon.span, floor)


def natural_exponential(horizon: Horizon, *, rate: float = 1e-4, floor: float = 0.0) -> Schedule:
    """m(t) = max(floor, e^(-rate t)).  Known as natural exponential decay; `rate` is per update.

    >>> [round(natural_exponential(Horizon(10, 1), rate=0.5)(t), 6) for t in (0, 2)]
    [1.0, 0.367879]
    """
    speed = positive("rate", rate, "1 / rate updates divide the learning rate by e; try 0.0001.")
    return _floored(lambda t: math.exp(-speed * t), horizon.span, floor)


def final_exponential(horizon: Horizon, *, final: float = 0.01) -> Schedule:
    """m(t) = final^x: exponential decay from 1 to `final` at the end, whatever the length of the run.

    As in fvcore and fastai. `final` is a share of the peak.

    >>> [final_exponential(Horizon(10, 1), final=0.25)(t) for t in (0, 5, 10)]
    [1.0, 0.5, 0.25]
    """
    end, span = positive_share("final", final, "it is the share of the peak that is left at the end."), horizon.span
    return lambda t: end ** (t / span) if t < span else end


def exponential_decay(
    horizon: Horizon,
    *,
    every: Duration = "10%",
    rate: float = 0.5,
    staircase: bool = False,
    floor: float = 0.0,
) -> Schedule:
    """m(t) = max(floor, rate^(t / every)); with `staircase` max(floor, rate^⌊t / every⌋).

    The exponential decay of TensorFlow: the rate is multiplied by `rate` over each `every`, smoothly or in stairs.

    >>> [exponential_decay(Horizon(10, 1), every=4, rate=0.25)(t) for t in (0, 2, 4, 8)]
    [1.0, 0.5, 0.25, 0.0625]
    >>> [exponential_decay(Horizon(10, 1), every=4, rate=0.25, staircase=True)(t) for t in (0, 2, 4, 8)]
    [1.0, 1.0, 0.25, 0.0625]
    """
    ratio = positive_share("rate", rate, "the learning rate is multiplied by it over each `every`.")
    return _paced(lambda n: ratio**n, horizon, every, staircase, floor)


def inverse_time(
    horizon: Horizon,
    *,
    rate: float = 1.0,
    every: Duration = "10%",
    staircase: bool = False,
    floor: float = 0.0,
) -> Schedule:
    """m(t) = max(floor, 1 / (1 + rate t / every)); with `staircase` ⌊t / every⌋ for t / every.

    Robbins & Monro 1951: without a floor the rates of an endless run add up to infinity and their squares do not.

    >>> [inverse_time(Horizon(12, 1), every=4)(t) for t in (0, 4, 12)]
    [1.0, 0.5, 0.25]
    """
    speed = positive("rate", rate, "after `every` the learning rate is 1 / (1 + rate) of the peak.")
    return _paced(lambda n: 1.0 / (1.0 + speed * n), horizon, every, staircase, floor)


def _paced(curve: Curve, horizon: Horizon, every: Duration, staircase: bool, floor: float) -> Schedule:
    """max(floor, curve(n)), where n = t / every, or ⌊t / every⌋ in a staircase."""
    if not isinstance(staircase, bool):
        raise ConfigError(f"staircase={staircase!r} is not true or false: choose one.")
    if not staircase:
        width = horizon.exact(every, "every", least=1)
        return _floored(lambda t: curve(t / width), horizon.span, floor)
    low, stair = fraction("floor", floor, FLOOR), stairs_of(horizon, every)
    return annotate(lambda t: max(low, curve(stair(t))), **annotations(stair))


def _floored(curve: Curve, span: float, floor: float) -> Schedule:
    """max(floor, curve(t)), constant from `span` on; a knot where it reaches the floor."""
    low = fraction("floor", floor, FLOOR)
    reached = bisect_left(range(math.ceil(span)), True, key=lambda t: curve(t) <= low)
    return annotate(lambda t: max(low, curve(min(t, span))), knots=[reached] if low and 0 < reached < span else [])
