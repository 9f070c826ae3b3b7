"""The learning rates that a range test suggests: by our rule and by published ones, each with its source.

The published rules read a smoothed curve without its ends, as fastai does: from point N // 10 on, without the last
five, for a sweep planned with N updates; and only up to its first loss that is not finite.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainer.lr.bounds import ConfigError
from trainer.lr.range_test import Edge, Fall, Sweep, edge, fall, middle_rate, pooled, smoothed

OURS = "fall"
HALF_DECADE = 10**0.5
WIDE = 10**0.75
"""The bracket reaches beyond the fall by this factor on each side. Measured: docs/range_test.md."""
Rule = Callable[[Sequence[float], Sequence[float]], float]


@dataclass(frozen=True)
class Suggestion:
    """A rate with its interval, or the reason why there is none.

    `interval` is the bracket of our rule, and the range over the seeds for the others. `caution` says why the bracket
    is wider than it usually is.
    """

    method: str
    source: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    checked: tuple[str, ...] = ()
    refused: str | None = None
    remedy: str = ""
    """The option that may help where it is refused: end, start or updates."""
    caution: str | None = None


def steep(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The lr_i where the loss falls fastest: with the least (l_{i+1} - l_i) / (ln lr_{i+1} - ln lr_i)."""
    slopes = [
        (after - before) / math.log(high / low)
        for before, after, low, high in zip(losses, losses[1:], rates, rates[1:])
    ]
    return rates[slopes.index(min(slopes))]


def minimum(rates: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the rate with the least loss."""
    return rates[losses.index(min(losses))] / 10.0


def valley(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate half-way between one and two thirds of the longest falling subsequence, taken as contiguous.

    With lds_i the length of the longest strictly falling subsequence that ends at i, e the first i of the longest,
    and s = lds_e / 3: the rate at e - lds_e + ⌊s⌋ + ⌊s / 2⌋, or the first one where that is none.
    """
    lengths: list[int] = []
    ends: list[float] = []  # by length, the highest loss at which a falling subsequence ends, with its sign turned
    for loss in losses:
        place = bisect_left(ends, -loss)
        ends[place : place + 1] = [-loss]
        lengths.append(place + 1)
    end = lengths.index(max(lengths))
    third = lengths[end] / 3
    return rates[max(0, end - lengths[end] + int(third) + int(third / 2))]


def slide(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Two points 15 apart move from the right while their slopes differ by over 0.005: the rate at the left one.

    Slopes are per point, ½ (l_{i+1} - l_{i-1}), and one-sided at the ends.
    """
    last = len(losses) - 1
    slopes = [(losses[min(i + 1, last)] - losses[max(i - 1, 0)]) / (2 if 0 < i < last else 1) for i in range(last + 1)]
    right, left = last, last - 15
    found = rates[left]
    while left >= 0 and abs(slopes[right] - slopes[left]) > 0.005:
        found = rates[left]
        right, left = right - 1, left - 1
    return found


_FASTAI = "fastai, callback/schedule.py"
PUBLISHED: dict[str, tuple[Rule, str]] = {
    "minimum/10": (minimum, _FASTAI),
    "valley": (valley, _FASTAI),
    "slide": (slide, _FASTAI),
    "steep": (steep, f"Smith 2015, arXiv:1506.01186, as in {_FASTAI}"),
}


def trimmed(sweep: Sweep) -> tuple[list[float], list[float]]:
    """The points that the published rules read: smoothed, without the ends, up to the first that is not finite."""
    losses, begin = smoothed(sweep.losses), (sweep.planned or len(sweep.losses)) // 10
    pairs = list(zip(sweep.rates, losses))[begin:-5]
    broken = next((i for i, (_, loss) in enumerate(pairs) if not math.isfinite(loss)), len(pairs))
    return [rate for rate, _ in pairs[:broken]], [loss for _, loss in pairs[:broken]]


def suggestions(sweeps: Sequence[Sweep]) -> dict[str, Suggestion]:
    """What each rule suggests, ours first: from the seeds together, the others by their median on the log axis."""
    suggested = {OURS: _of_fall(sweeps)}
    for name, (rule, source) in PUBLISHED.items():
        suggested[name] = _published(name, rule, source, sweeps, suggested[OURS].refused)
    return suggested


def edges(sweeps: Sequence[Sweep]) -> tuple[dict[int, Edge], list[str]]:
    """The edge of each seed that has one, and why the others have none."""
    found: dict[int, Edge] = {}
    reasons: list[str] = []
    for sweep in sweeps:
        try:
            found[sweep.seed] = edge(sweep)
        except ConfigError as error:
            reasons.append(f"seed {sweep.seed}: {error}")
    return found, reasons


def agreed_edge(found: Mapping[int, Edge], reasons: Sequence[str], count: int) -> float:
    """The median edge of `count` seeds.

    Raises:
        ConfigError: half of the seeds have none, or they lie decades apart.
    """
    if 2 * len(found) <= count:
        raise ConfigError(reasons[0])
    seen = [one.rate for one in found.values()]
    middle = middle_rate(seen)
    near = [rate for rate in seen if 1 / HALF_DECADE <= rate / middle <= HALF_DECADE]
    if 2 * len(near) <= len(seen):
        ends = f"{min(seen):.3g} to {max(seen):.3g}"
        raise ConfigError(f"the seeds disagree on where training breaks, from {ends}: raise --updates, or the batch.")
    return middle


def _of_fall(sweeps: Sequence[Sweep]) -> Suggestion:
    """`Fall.suggested` of the seeds' median loss, with a bracket around its fall.

    It reaches from 3/4 of a decade below the rate where most of the fall is made to as much above the rate of the
    lowest loss; where seeds alone would suggest something outside, to them.
    """
    source = "ours, measured in docs/range_test.md"
    try:
        found = fall(pooled(sweeps))
    except ConfigError as reason:
        return Suggestion(OURS, source, refused=str(reason), remedy=getattr(reason, "remedy", ""))
    alone = [one.suggested for one in map(_fall_or_none, sweeps) if one is not None]
    low, high = found.rate / WIDE, found.best * WIDE
    bracket = (min([low, *alone]), max([high, *alone]))
    seeds = "1 seed" if len(sweeps) == 1 else f"{len(sweeps)} seeds together"
    checked = (
        f"the loss of {seeds} falls from {found.first:.4g} to {found.lowest:.4g}, with a noise of {found.noise:.2g}",
        "the lowest loss lies inside the sweep",
    )
    caution = None
    if bracket != (low, high):
        caution = (
            f"the seeds alone would suggest {min(alone):.3g} to {max(alone):.3g}, so the bracket is wider: raise "
            "--seeds or --updates, or take cadence tune, which trains."
        )
    return Suggestion(OURS, source, found.suggested, bracket, checked, caution=caution)


def _fall_or_none(sweep: Sweep) -> Fall | None:
    try:
        return fall(sweep)
    except ConfigError:
        return None


def _published(name: str, rule: Rule, source: str, sweeps: Sequence[Sweep], silent: str | None) -> Suggestion:
    if silent:
        return Suggestion(name, source, refused=silent)
    curves = [trimmed(sweep) for sweep in sweeps]
    values = [rule(*curve) for curve in curves if len(curve[0]) > 16]
    if not values:
        return Suggestion(name, source, refused="fewer than 17 points are left without the ends: raise --updates.")
    checked = (f"{len(values)} of {len(sweeps)} seeds have the points that it needs",)
    return Suggestion(name, source, middle_rate(values), (min(values), max(values)), checked)
