"""Cycles: restarts that fall and jump back to a peak, and waves that go up and down."""

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from fractions import Fraction

from trainer.lr.bounds import ConfigError, fraction, integer, number, positive_share
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import FLOOR, SHAPES, Schedule, annotate, one_of

_WAVES = {name: SHAPES[name] for name in ("linear", "cosine")}
_SNAP = 1e-12
MODES = ("triangular", "triangular2", "exp_range")
_cosine = SHAPES["cosine"]


def restarts(
    horizon: Horizon,
    *,
    first: Duration | None = None,
    cycles: int = 3,
    length_mult: float = 2.0,
    peak_mult: float = 1.0,
    floor: float = 0.0,
    warmup: Duration = 0,
    scales: str = "cosine",
) -> Schedule:
    """m(t) = low_i + high_i (1 + cos πx) / 2 in cycle i = 0, 1, …, of first · length_mult^i updates.

    SGDR: Loshchilov & Hutter 2016, arXiv:1608.03983. x is the share of the cycle that is done. Without `first`,
    `cycles` cycles fill the span; with it, there are as many cycles as the span needs. The first `warmup` updates of
    each cycle rise linearly from the floor to its peak, and the cosine takes the rest. `scales` says what
    g = peak_mult^i scales: "cosine", low_i = floor and high_i = g (1 - floor); "peak", high_i = g - floor;
    "cycle", low_i = g · floor and high_i = g (1 - floor).

    >>> [restarts(Horizon(12, 1), first=4)(t) for t in (0, 2, 4, 8, 12)]
    [1.0, 0.5, 1.0, 0.5, 0.0]
    """
    bounds = _bounds(horizon, first, cycles, length_mult)
    starts, lengths = bounds[:-1], [end - begin for begin, end in zip(bounds, bounds[1:])]
    width = horizon.updates(warmup, "warmup")
    if width >= lengths[0]:
        raise ConfigError(f"warmup={warmup} is {width} updates, but the first cycle has {lengths[0]}: shorten it.")
    lows, highs = _levels(len(starts), peak_mult, floor, scales)
    lead, extent = horizon.convention.progress(width)
    span = horizon.span

    def factor(t: float) -> float:
        t = min(t, span)
        i = bisect_right(starts, t) - 1
        done = t - starts[i]
        share = (done + lead) / extent if done < width else _cosine((done - width) / (lengths[i] - width))
        return lows[i] + highs[i] * share

    knots = [begin + extent - lead for begin in starts] if width else []
    return annotate(factor, jumps=starts[1:], knots=knots, ends=bounds[1:])


def _levels(count: int, peak_mult: float, floor: float, scales: str) -> tuple[list[float], list[float]]:
    """low_i and high_i of each of `count` cycles, see `restarts`."""
    low = fraction("floor", floor, FLOOR)
    if scales not in ("cosine", "peak", "cycle"):
        raise ConfigError(f"scales={scales!r} is not known: choose one of cosine, peak, cycle.")
    mult = positive_share("peak_mult", peak_mult, "each restart multiplies the peak by it.")
    peaks = [mult**i for i in range(count)]
    lows = [low * peak if scales == "cycle" else low for peak in peaks]
    highs = [peak - low if scales == "peak" else (1.0 - low) * peak for peak in peaks]
    if min(highs) < 0:
        raise ConfigError(
            f"peak_mult={peak_mult} takes the peak of cycle {count - 1} below the floor of {floor}: raise it."
        )
    return lows, highs


def hard_restarts(horizon: Horizon, *, cycles: int = 4, floor: float = 0.0) -> Schedule:
    """m(t) = floor + (1 - floor) (1 + cos π(Cx mod 1)) / 2, C = `cycles`: SGDR, arXiv:1608.03983, in equal cycles.

    >>> [hard_restarts(Horizon(8, 1), cycles=2)(t) for t in (0, 2, 4, 6, 8)]
    [1.0, 0.5, 1.0, 0.5, 0.0]
    """
    low, span = fraction("floor", floor, FLOOR), horizon.span
    count = _cycles(horizon, cycles)

    def factor(t: int) -> float:
        return low + (1.0 - low) * _cosine(t * count % span / span) if t < span else low

    ends = [-(-i * span // count) for i in range(1, count + 1)]
    return annotate(factor, jumps=ends[:-1], ends=ends)


def cyclic(
    horizon: Horizon,
    *,
    period: Duration | None = None,
    cycles: int | None = 4,
    rise: float = 0.5,
    shape: str = "linear",
    mode: str = "triangular",
    gamma: float = 0.99994,
    floor: float = 0.1,
) -> Schedule:
    """m(t) = floor + (1 - floor) d(y) s: up from the floor and down again, cycle by cycle.

    Smith 2015, arXiv:1506.01186. A cycle c = 0, 1, … lasts `period` updates, or the schedule is split into `cycles`
    equal ones; in each, the share `rise` goes up. y is 0 at the peak and 1 at the floor; `shape` is d: "linear"
    1 - y, "cosine" (1 + cos πy) / 2. `mode` is s: "triangular" 1, "triangular2" 2^-c, "exp_range" gamma^t.

    >>> [cyclic(Horizon(16, 1), cycles=2, floor=0.0)(t) for t in (0, 2, 4, 8, 12)]
    [0.0, 0.5, 1.0, 0.0, 1.0]
    """
    if (period is None) == (cycles is None):
        raise ConfigError(f"period={period} and cycles={cycles}: give one of them, and null for the other.")
    low, up = fraction("floor", floor, FLOOR), fraction("rise", rise, "it is the share of a cycle that goes up.")
    wave, scale, span = one_of("shape", shape, _WAVES), _scale(mode, gamma), int(horizon.span)
    length = Fraction(span, _cycles(horizon, cycles)) if period is None else horizon.ratio(period, "period", 2)
    over, many = length.as_integer_ratio()

    def value(t: int, cycle: int, x: float) -> float:
        away = 1.0 - x / up if x < up else (x - up) / (1.0 - up) if x > up else 0.0
        return low + (1.0 - low) * wave(away) * scale(t, cycle)

    complete = -(-span * many // over) - 1
    held = value(span, complete, (span * many - complete * over) / over)

    def factor(t: int) -> float:
        return value(t, t * many // over, t * many % over / over) if t < span else held

    ends = [-(-i * over // many) for i in range(1, complete + 2)]
    tops = [math.floor((i + up) * over / many + 0.5) for i in range(complete + 1)]
    return annotate(factor, jumps=ends[:-1] if up in (0.0, 1.0) else [], knots=tops, ends=ends)


def _bounds(horizon: Horizon, first: Duration | None, cycles: int, length_mult: float) -> Sequence[float]:
    """Where the cycles begin, and the end of the last one: at the end of the schedule, or after it."""
    mult = number("length_mult", length_mult, "it multiplies the length from cycle to cycle: 1 or more.", 1.0)
    read = horizon.convention
    if first is None:
        count = _cycles(horizon, cycles)
        if not read.exact:
            return geometric(int(horizon.span), count, mult)
        sums = _sums(count, mult)
        return [_bound(horizon.span * share / sums[-1], exact=True) for share in sums]
    length, end = float(horizon.exact(first, "first", least=1)), 0.0
    bounds: list[float] = [0]
    while bounds[-1] < horizon.span:
        end = length * len(bounds) if mult == 1.0 else end + length
        bounds.append(_bound(end, read.exact))
        length = float(math.floor(length * mult)) if read.rounding == "down" else length * mult
    return bounds


def _bound(end: float, exact: bool) -> float:
    """A bound: rounded, or with `exact` only if a whole update is so near that rounding is all that lies between."""
    near = math.floor(end + 0.5)
    return end if exact and abs(end - near) > _SNAP * end else near


def _sums(cycles: int, mult: float) -> list[float]:
    """The bounds of `cycles` cycles, each `mult` times as long as the one before, in lengths of the first."""
    return list(itertools.accumulate((mult**i for i in range(cycles)), initial=0.0))


def geometric(span: int, cycles: int, mult: float) -> list[int]:
    """The bounds of `cycles` cycles that fill `span` updates, each `mult` times as long as the one before.

    >>> geometric(14, 3, 2.0)
    [0, 2, 6, 14]
    """
    if cycles > span:
        raise ConfigError(f"cycles={cycles} do not fit into {span} updates: take fewer.")
    sums = _sums(cycles, mult)
    bounds = [round(span * share / sums[-1]) for share in sums]
    if any(later <= earlier for earlier, later in itertools.pairwise(bounds)):
        raise ConfigError(f"cycles={cycles} do not fit into {span} updates: take fewer.")
    return bounds


def _cycles(horizon: Horizon, cycles: int | None) -> int:
    return integer(
        "cycles", cycles, f"the schedule has {horizon.span} updates, and a cycle at least 2.", 1, horizon.span // 2
    )


def _scale(mode: str, gamma: float) -> Callable[[int, int], float]:
    """The height of a wave at update t of cycle c."""
    ratio = positive_share("gamma", gamma, "each update multiplies the height of the waves by it.")
    if mode == "triangular":
        return lambda t, cycle: 1.0
    if mode == "triangular2":
        return lambda t, cycle: 0.5**cycle
    if mode == "exp_range":
        return lambda t, cycle: ratio**t
    raise ConfigError(f"mode={mode!r} is not known: choose one of {', '.join(MODES)}.")
