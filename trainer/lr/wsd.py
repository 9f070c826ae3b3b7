"""A constant peak, then a decay: warm-up-stable-decay, its periodic form, tri-stage."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

from trainer.lr.bounds import ConfigError, fraction, integer, number, positive
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import FLOOR, SHAPES, START, Schedule, annotate, falling, one_of
from trainer.lr.stairs import HIGHEST


def wsd(
    horizon: Horizon,
    *,
    decay: Duration = "20%",
    shape: str = "1-sqrt",
    power: float = 2.0,
    ratio: float = 0.01,
    floor: float = 0.0,
) -> Schedule:
    """Warm-up, stable, decay: m(t) = 1, then over the last `decay` updates floor + (1 - floor) d(x).

    Hu et al. 2024, arXiv:2404.06395; Hägele et al. 2024, arXiv:2405.18392. x is the share of the decay that is done,
    and `shape` is d: "linear" 1 - x, "cosine" (1 + cos πx) / 2, "1-sqrt" 1 - √x, "1-square" 1 - x², "square" (1 - x)²,
    "power" (1 - x)^power, "1-power" 1 - x^power, "exponential" (ratio^x - ratio) / (1 - ratio).

    >>> [wsd(Horizon(10, 1), decay=4, shape="linear")(t) for t in (0, 6, 8)]
    [1.0, 1.0, 0.5]
    """
    width = horizon.exact(decay, "decay", least=1)
    if width > horizon.span:
        raise ConfigError(f"decay={decay} is {width:g} updates, but the schedule has {horizon.span}: shorten it.")
    begin = horizon.span - width
    return annotate(falling(begin, horizon.span, _shape(shape, power, ratio), floor), knots=[begin])


def wsd_s(
    horizon: Horizon,
    *,
    periods: int | Sequence[Duration] = 3,
    decay_share: float = 0.2,
    peaks: Sequence[float] | None = None,
    shape: str = "linear",
    floor: float = 0.0,
) -> Schedule:
    """m(t) = p_i in period i, and over its last `decay_share` floor + (p_i - floor) d(x): a decay for each period.

    WSD-S: Wen et al. 2024, arXiv:2410.05192. `periods` is a number of equal periods, or the end of each, as in
    ["25%", "50%"]; the last one ends with the schedule. After each period the rate jumps to the next of `peaks`, shares
    of the peak (by default all 1). `shape` is d, as in `wsd`.

    >>> [wsd_s(Horizon(20, 1), periods=2, decay_share=0.4)(t) for t in (0, 6, 8, 10, 18)]
    [1.0, 1.0, 0.5, 1.0, 0.5]
    """
    low, curve = fraction("floor", floor, FLOOR), one_of("shape", shape, SHAPES)
    bounds = _bounds(horizon, periods)
    widths = [_width(end - begin, decay_share) for begin, end in pairwise(bounds)]
    highs = _peaks(peaks, len(widths), low)
    falls = [end - width for end, width in zip(bounds[1:], widths)]
    starts, span = bounds[:-1], horizon.span

    def factor(t: float) -> float:
        t = min(t, span)
        i = bisect_right(starts, t) - 1
        if t <= falls[i]:
            return highs[i]
        return low + (highs[i] - low) * curve((t - falls[i]) / widths[i])

    return annotate(factor, jumps=starts[1:], knots=falls, ends=bounds[1:])


def tri_stage(
    horizon: Horizon,
    *,
    warmup: Duration = "10%",
    hold: Duration = "40%",
    start: float = 0.01,
    floor: float = 0.01,
) -> Schedule:
    """m(t) = start + (1 - start) (t + 1) / W, then 1 for H updates, then floor^x = e^(-λ (t - W - H)) to the end.

    Park et al. 2019, arXiv:1904.08779; fairseq's tri_stage. W is `warmup` and H `hold`, in updates, and x the share of
    the third stage that is done; at the end m(t) = floor. It has its own warm-up: use it with warmup=none.

    >>> [tri_stage(Horizon(20, 1), warmup=4, hold=6, start=0.2, floor=0.25)(t) for t in (0, 3, 10, 15, 20)]
    [0.4, 1.0, 1.0, 0.5, 0.25]
    """
    width, span = horizon.updates(warmup, "warmup"), horizon.span
    begin = width + horizon.updates(hold, "hold")
    if begin >= span:
        raise ConfigError(
            f"warmup={warmup} and hold={hold} are {begin} updates of the {span} of the schedule: shorten them."
        )
    first = fraction("start", start, START)
    if positive("floor", floor, "an exponential never reaches 0; try 0.01.") > 1:
        raise ConfigError(f"floor={floor!r} is out of range: {FLOOR}")
    lead, extent = horizon.convention.progress(width)

    def factor(t: int) -> float:
        if t + lead < extent and width:
            return first + (1.0 - first) * ((t + lead) / extent)
        if t <= begin:
            return 1.0
        return floor ** ((t - begin) / (span - begin)) if t < span else floor

    return annotate(factor, knots=[extent - lead, begin] if width else [begin])


def _shape(shape: str, power: float, ratio: float) -> Callable[[float], float]:
    exponent = positive("power", power, "it is the exponent of the shapes power and 1-power.")
    if positive("ratio", ratio, "it is the ratio of the shape exponential, above 0 and below 1.") >= 1:
        raise ConfigError(f"ratio={ratio!r} is out of range: the shape exponential falls by it, so it is below 1.")
    own: dict[str, Callable[[float], float]] = {
        "power": lambda x: (1.0 - x) ** exponent,
        "1-power": lambda x: 1.0 - x**exponent,
        "exponential": lambda x: (ratio**x - ratio) / (1.0 - ratio),
    }
    return one_of("shape", shape, {**SHAPES, **own})


def _bounds(horizon: Horizon, periods: int | Sequence[Duration]) -> list[int]:
    """The updates at which the periods begin, and the end of the last one: at the end of the schedule, or after it."""
    span = int(horizon.span)
    if isinstance(periods, str) or not isinstance(periods, Sequence) or not periods:
        count = integer("periods", periods, f"give how many, up to the {span} updates of the schedule.", 1, span)
        return [-(-i * span // count) for i in range(count + 1)]
    bounds = [0]
    for i, end in enumerate(periods):
        bounds.append(horizon.updates(end, f"periods[{i}]", least=1))
        if bounds[-1] <= bounds[-2]:
            raise ConfigError(
                f"periods[{i}]={end!r} is at update {bounds[-1]}, not after {bounds[-2]}: give them in order."
            )
    return bounds if bounds[-1] >= span else [*bounds, span]


def _width(length: int, share: float) -> int:
    """The updates of the decay of a period."""
    width = math.floor(fraction("decay_share", share, "it is the share of a period that decays.") * length + 0.5)
    if not width:
        raise ConfigError(
            f"decay_share={share} of a period of {length} updates is no update: raise it, or lower periods."
        )
    return width


def _peaks(peaks: Sequence[float] | None, count: int, low: float) -> list[float]:
    if peaks is None:
        return [1.0] * count
    if isinstance(peaks, str) or not isinstance(peaks, Sequence) or len(peaks) != count:
        raise ConfigError(f"peaks={peaks!r} is not a list of {count} values: give one for each period, or null.")
    why = f"it is a share of the peak learning rate, from the floor of {low} on."
    return [number(f"peaks[{i}]", peak, why, low, HIGHEST) for i, peak in enumerate(peaks)]
