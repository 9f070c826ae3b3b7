"""Schedules made of stairs, and of points.

The convention's `early`, which moves the end of a decay, does not apply to them.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from trainer.lr.bounds import ConfigError, fraction, number, positive_share
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import FLOOR, SHAPES, Schedule, annotate, annotations

HIGHEST = 1000.0
_ROUNDING = 1e-9
"""How far below a time between two updates an update may lie, by rounding, and have reached it."""
_GAMMA = "each step multiplies the learning rate by it."
INTERPOLATIONS = ("constant", "linear", "cosine")


def step(horizon: Horizon, *, every: Duration = "30%", gamma: float = 0.1, floor: float = 0.0) -> Schedule:
    """m(t) = max(floor, gamma^⌊t / every⌋).  He et al. 2015, arXiv:1512.03385.

    >>> [step(Horizon(9, 1), every=3)(t) for t in (0, 2, 3)]
    [1.0, 1.0, 0.1]
    """
    stair = stairs_of(horizon, every)
    low, ratio = fraction("floor", floor, FLOOR), positive_share("gamma", gamma, _GAMMA)
    return annotate(lambda t: max(low, ratio ** stair(t)), **annotations(stair))


def multi_step(
    horizon: Horizon,
    *,
    milestones: Sequence[Duration] = ["50%", "75%"],
    gamma: float | Sequence[float] = 0.1,
    floor: float = 0.0,
) -> Schedule:
    """m(t) = max(floor, gamma^n), n = #{i: milestone_i ≤ t}, as in He et al. 2015, arXiv:1512.03385.

    The rate falls at the milestone itself, or `shift` updates after it where the convention says so. With one
    gamma per milestone, m(t) is the product of those whose milestone is reached.

    >>> [multi_step(Horizon(9, 1), milestones=[3, 6], gamma=0.5)(t) for t in (2, 3, 6)]
    [1.0, 0.5, 0.25]
    """
    times = [
        horizon.exact(given, f"milestones[{i}]", least=1) for i, given in enumerate(_list("milestones", milestones))
    ]
    _increasing("milestones", milestones, times)
    low, values = fraction("floor", floor, FLOOR), _powers(gamma, len(times))
    return _table(_falls(horizon, times), [max(low, value) for value in values], horizon.left - 1)


def piecewise(
    horizon: Horizon,
    *,
    points: Sequence[Sequence[Duration]] = [[0, 1.0], ["50%", 0.1], ["75%", 0.01]],
    interpolation: str = "linear",
) -> Schedule:
    """m(t) = v_i at t = t_i for each point (t_i, v_i), along `interpolation` between two, and the last v_i after them.

    "constant" is v_i until t_{i+1}, "linear" a straight line, "cosine" half a cosine. The first t_i is 0. A stair of
    "constant" comes `shift` updates after its point where the convention says so. Where its first values are 0, the
    rate is 0 on purpose: what is trained with it is frozen until then.

    >>> [piecewise(Horizon(8, 1), points=[[0, 0.0], [4, 1.0]])(t) for t in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    if interpolation not in INTERPOLATIONS:
        raise ConfigError(f"interpolation={interpolation!r} is not known: choose one of {', '.join(INTERPOLATIONS)}.")
    table = _points(horizon, points)
    if interpolation != "constant":
        return annotate(joined(table, SHAPES[interpolation], horizon.left), knots=[time for time, _ in table[1:]])
    times = _falls(horizon, [time for time, _ in table[1:]])
    values = [value for _, value in table]
    zeros = next((i for i, value in enumerate(values) if value), len(values))
    frozen = [times[zeros - 1]] if 0 < zeros < len(values) else []
    stairs = _table(times, values, horizon.left - 1)
    return annotate(stairs, **annotations(stairs), unfreezes=frozen) if frozen else stairs


def joined(points: Sequence[tuple[float, float]], shape: Callable[[float], float], last: float) -> Schedule:
    """Through `points`, from each to the next along `shape`; constant before the first, after the final one and `last`.

    m(t) = low + (high - low) d(x), where x runs from 0 at the higher of two neighbours to 1 at the lower one.
    """
    times = [time for time, _ in points]
    pieces: list[tuple[float, float, float, float]] = [(0, 1, points[0][1], 0.0)]
    for (begin, first), (end, second) in pairwise(points):
        top = begin if first > second else end
        pieces.append((top, end - begin, min(first, second), abs(first - second)))
    pieces.append((0, 1, points[-1][1], 0.0))

    def factor(t: float) -> float:
        t = min(t, last)
        top, width, low, gap = pieces[bisect_right(times, t)]
        return low + gap * shape(abs(t - top) / width) if gap else low

    return factor


def stairs_of(horizon: Horizon, every: Duration) -> Schedule:
    """⌊t / every⌋, annotated with its jumps; nothing changes after the last update."""
    over, many = horizon.ratio(every, "every", least=1).as_integer_ratio()
    last = (horizon.left - 1) * many // over
    jumps = [-(-i * over // many) for i in range(1, int(max(last, 1)) + 1)]
    return annotate(lambda t: min(t * many // over, last), jumps=jumps)


def _falls(horizon: Horizon, times: Sequence[float]) -> list[float]:
    """Where the stairs of `times` fall; a stair that falls late has its time on the stair before."""
    shift = horizon.convention.shift
    if shift > 0:
        return [math.floor(time) + shift for time in times]
    return [time + shift - (0 if time % 1 == 0 else _ROUNDING) for time in times]


def _table(times: list[float], values: list[float], last: float) -> Schedule:
    """values[n] at update t, n the number of `times` that are reached; nothing changes after update `last`."""
    return annotate(lambda t: values[bisect_right(times, min(t, last))], jumps=times)


def _powers(gamma: float | Sequence[float], count: int) -> list[float]:
    """The share of the peak after 0, 1, … `count` milestones."""
    if not isinstance(gamma, Sequence) or isinstance(gamma, str):
        ratio = positive_share("gamma", gamma, _GAMMA)
        return [ratio**n for n in range(count + 1)]
    if len(gamma) != count:
        raise ConfigError(f"gamma={gamma!r} has {len(gamma)} values for {count} milestones: give one, or one for each.")
    ratios = [positive_share(f"gamma[{i}]", given, _GAMMA) for i, given in enumerate(gamma)]
    return list(accumulate(ratios, lambda product, ratio: product * ratio, initial=1.0))


def _points(horizon: Horizon, points: Sequence[Sequence[Duration]]) -> list[tuple[float, float]]:
    table: list[tuple[float, float]] = []
    for i, pair in enumerate(_list("points", points)):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ConfigError(f"points[{i}]={pair!r} is not a pair: give [duration, share of the peak].")
        value = number(f"points[{i}]", pair[1], "it is a share of the peak learning rate, from 0 on.", 0.0, HIGHEST)
        table.append((horizon.exact(pair[0], f"points[{i}]"), value))
    times = [time for time, _ in table]
    if times[0] != 0:
        raise ConfigError(f"points[0]={points[0]!r} is at update {times[0]:g}: the first point is at 0.")
    _increasing("points", points, times)
    return table


def _list(name: str, given: Sequence[object]) -> Sequence:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise ConfigError(f"{name}={given!r} is not a list: give one in brackets, of at least one entry.")
    return given


def _increasing(name: str, given: Sequence[object], times: Sequence[float]) -> None:
    for i, (earlier, later) in enumerate(pairwise(times), start=1):
        if later <= earlier:
            raise ConfigError(
                f"{name}[{i}]={given[i]!r} is at update {later:g}, not after {earlier:g}: give them in order."
            )
