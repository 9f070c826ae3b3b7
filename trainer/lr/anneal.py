"""Annealing: from the peak to the floor over the whole schedule, along one smooth curve."""

import math
from collections.abc import Callable

from trainer.lr.bounds import ConfigError, fraction, number, positive
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import FLOOR, SHAPES, Schedule, annotate, falling, with_range

STEEPEST = 1000.0
"""The largest exponent: (1 - x)^1000 is down to 1 / e after a thousandth of the schedule."""


def linear(horizon: Horizon, *, floor: float = 0.0) -> Schedule:
    """m(t) = floor + (1 - floor) (1 - x).  Defazio et al. 2023, arXiv:2310.07831.

    >>> linear(Horizon(10, 1))(5)
    0.5
    """
    return falling(0, horizon.span, SHAPES["linear"], floor)


def linear_rate(horizon: Horizon, *, rate: float = 1.0, floor: float = 0.0) -> Schedule:
    """m(t) = max(floor, 1 - rate x): a linear decay with a given slope.

    With rate 2 it reaches 0 at half of the schedule; with rate 0.5 it ends at half of the peak.

    >>> [linear_rate(Horizon(8, 1), rate=2.0)(t) for t in (0, 2, 4, 8)]
    [1.0, 0.5, 0.0, 0.0]
    """
    slope = positive("rate", rate, "it is the share of the peak that is lost over the whole schedule.")
    low, span = fraction("floor", floor, FLOOR), horizon.span
    reached = math.ceil(span * min(1.0, (1.0 - low) / slope))
    curve = _over(span, lambda x: max(low, 1.0 - slope * x))
    return annotate(curve, knots=[reached] if 0 < reached < span else [])


def cosine(
    horizon: Horizon, *, floor: float = 0.0, exponent: float = 1.0, k: float = 1.0, cycles: float = 0.5
) -> Schedule:
    """m(t) = floor + (1 - floor) ((1 + cos 2πcx^k) / 2)^exponent, c = `cycles`: with the defaults (1 + cos πx) / 2.

    Loshchilov & Hutter 2016, arXiv:1608.03983; k: Zhang & Li 2020, arXiv:2004.05909. With 0.5, 1.5, 2.5, …
    cycles it ends at the floor, with any other number above it.

    >>> cosine(Horizon(10, 1), floor=0.1)(5)
    0.55
    """
    sharp = _exponent("exponent", exponent, "the share (1 + cos πx) / 2 is raised to it")
    late = _exponent("k", k, "the progress x is raised to it")
    waves, span = positive("cycles", cycles, "0.5 falls from the peak to the floor, 1 rises again."), horizon.span
    if 2.0 * waves > span:
        raise ConfigError(f"cycles={cycles!r} is more than half of the {span} updates of the schedule: lower it.")
    turn = 2.0 * waves * math.pi
    plain = waves == 0.5 and sharp == late == 1.0
    if plain:
        return _half_wave(span, floor)
    ends = [math.ceil(span * (i / waves) ** (1.0 / late)) for i in range(1, math.floor(waves) + 1)]
    curve = _between(span, lambda x: (0.5 * (1.0 + math.cos(turn * x**late))) ** sharp, floor)
    return annotate(curve, ends=ends) if ends else curve


def half_cosine(horizon: Horizon, *, floor: float = 0.0) -> Schedule:
    """m(t) = floor + (1 - floor) cos(πx / 2): a quarter of a wave, flat at the peak and steep at the end.

    OLMo-core's half cosine is another curve: 1 - sin(πx / 2), from half of the peak.

    >>> [round(half_cosine(Horizon(12, 1))(t), 6) for t in (0, 4, 8, 12)]
    [1.0, 0.866025, 0.5, 0.0]
    """
    return falling(0, horizon.span, lambda x: math.cos(0.5 * math.pi * x), floor)


def polynomial(
    horizon: Horizon,
    *,
    power: float = 1.0,
    floor: float = 0.0,
    decay: Duration | None = None,
    cycle: bool = False,
) -> Schedule:
    """m(t) = floor + (1 - floor) (1 - min(t, D) / D)^power, D = `decay`, by default the whole schedule.

    Known as "poly": Chen et al. 2016, arXiv:1606.00915. With `cycle` it starts again every D updates, each time from
    a lower value: D ⌈t / D⌉ takes the place of D. Where D is longer than the schedule, it ends above the floor.

    >>> [polynomial(Horizon(8, 1), power=2.0, decay=4)(t) for t in (0, 2, 4, 8)]
    [1.0, 0.25, 0.0, 0.0]
    >>> [polynomial(Horizon(8, 1), decay=4, cycle=True)(t) for t in (0, 2, 4, 6, 8)]
    [1.0, 0.5, 0.0, 0.25, 0.0]
    """
    if not isinstance(cycle, bool):
        raise ConfigError(f"cycle={cycle!r} is not true or false: choose one.")
    q, low = _exponent("power", power, "the share 1 - x is raised to it"), fraction("floor", floor, FLOOR)
    span = horizon.span
    width = span if decay is None else horizon.exact(decay, "decay", least=2 if cycle else 1)
    last = span if cycle else min(span, width)

    def factor(t: float) -> float:
        t = min(t, last)
        end = width * -(-t // width) if t > width else width
        return low + (1.0 - low) * (1.0 - t / end) ** q

    if cycle:
        ends = [width * i for i in range(1, math.ceil(span / width) + 1)]
        return annotate(factor, jumps=[math.floor(end) + 1 for end in ends if end < span], ends=map(math.ceil, ends))
    return annotate(factor, knots=[] if width == span else [math.ceil(width)])


def square_annealing(horizon: Horizon, *, floor: float = 0.0) -> Schedule:
    """m(t) = floor + (1 - floor) (1 - x)².  NeMo's square annealing.

    >>> square_annealing(Horizon(10, 1))(5)
    0.25
    """
    return falling(0, horizon.span, SHAPES["square"], floor)


def sqrt_annealing(horizon: Horizon, *, floor: float = 0.0) -> Schedule:
    """m(t) = floor + (1 - floor) √(1 - x).  NeMo's square root annealing.

    >>> sqrt_annealing(Horizon(8, 1))(6)
    0.5
    """
    return falling(0, horizon.span, lambda x: math.sqrt(1.0 - x), floor)


def tanh(horizon: Horizon, *, lower: float = -7.0, upper: float = 3.0, floor: float = 0.0) -> Schedule:
    """m(t) = floor + (1 - floor) (1 - tanh(lower (1 - x) + upper x)) / 2.  Hsueh et al. 2018, arXiv:1806.01593.

    It starts just below 1 and ends just above the floor: by default at 0.999999 and floor + 0.0025 (1 - floor).

    >>> [round(tanh(Horizon(10, 1))(t), 6) for t in (0, 7, 10)]
    [0.999999, 0.5, 0.002473]
    """
    begin = number("lower", lower, "it is where on the tanh the curve starts.")
    end = number("upper", upper, "it is where on the tanh the curve ends.")
    if begin >= end:
        raise ConfigError(f"lower={lower!r} is not below upper={upper!r}: give lower < upper.")
    return _between(horizon.span, lambda x: 0.5 * (1.0 - math.tanh(begin * (1.0 - x) + end * x)), floor)


def rex(horizon: Horizon, *, floor: float = 0.0) -> Schedule:
    """m(t) = floor + (1 - floor) (1 - x) / (1 - x / 2).  REX: Chen et al. 2021, arXiv:2107.04197.

    >>> rex(Horizon(12, 1))(6) == 2 / 3
    True
    """
    return falling(0, horizon.span, lambda x: (1.0 - x) / (1.0 - 0.5 * x), floor)


def _half_wave(span: float, floor: float) -> Schedule:
    """Half a cosine in one function, which takes half the time of `_between`: the usual schedule of long runs."""
    low, cos, pi = fraction("floor", floor, FLOOR), math.cos, math.pi
    rest = 1.0 - low

    def over(ts: range) -> list[float]:
        if ts.stop > span:
            return list(map(factor, ts))
        shares = [0.5 * (1.0 + cos(pi * (t / span))) for t in ts]
        return [low + rest * share for share in shares] if low else shares

    def factor(t: int) -> float:
        return low + rest * (0.5 * (1.0 + cos(pi * (t / span)))) if t < span else low

    return with_range(factor, over)


def _between(span: float, shape: Callable[[float], float], floor: float) -> Schedule:
    """From 1 towards `floor` along `shape`; from `span` on its last value."""
    low = fraction("floor", floor, FLOOR)
    return _over(span, lambda x: low + (1.0 - low) * shape(x))


def _over(span: float, curve: Callable[[float], float]) -> Schedule:
    """`curve` over x = t / span, and its last value from `span` on."""
    held = curve(1.0)
    return lambda t: curve(t / span) if t < span else held


def _exponent(name: str, value: float, why: str) -> float:
    positive(name, value, f"{why}.")
    return number(name, value, f"{why}; give a value up to {STEEPEST:g}.", high=STEEPEST)
