"""Robust statistics of a noisy series: blocks with standard errors, and trends per unit of learning rate."""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from statistics import fmean, median
from typing import NamedTuple

MAD = 1.4826
"""σ of a normal distribution over its median absolute deviation."""
MEDIAN = 1.2533
"""The standard error of a median over that of a mean, for a normal distribution: √(π/2)."""


class Block(NamedTuple):
    """The values [begin, end) of a series: their median, and its standard error."""

    begin: int
    end: int
    middle: float
    error: float


class Trend(NamedTuple):
    """The slope of the loss over the sum of the rates, and how many standard errors it is."""

    slope: float = 0.0
    score: float = 0.0


def noise(values: Sequence[float]) -> float:
    """σ of the noise of single values, from the differences of neighbours, which a slow trend hardly changes."""
    return MAD / math.sqrt(2) * median(abs(b - a) for a, b in pairwise(values)) if len(values) > 1 else 0.0


def blocks(values: Sequence[float], most: int = 20) -> list[Block]:
    """`most` blocks of equal length, or fewer with about ten values each."""
    count = max(4, min(most, len(values) // 10))
    edges = [round(len(values) * i / count) for i in range(count + 1)]
    parts = [(a, b, values[a:b]) for a, b in pairwise(edges)]
    return [Block(a, b, median(part), MEDIAN * noise(part) / math.sqrt(b - a)) for a, b, part in parts]


def running_medians(values: Sequence[float], width: int = 5) -> list[float]:
    """The medians of `width` values in a row."""
    return [median(values[i : i + width]) for i in range(len(values) - width + 1)]


def half_spent(rates: Sequence[float]) -> int:
    """The index at which the sum of the rates so far is half of the whole sum."""
    sums = list(accumulate(rates))
    return next((i for i, spent in enumerate(sums) if 2 * spent >= sums[-1]), 0)


def trend(losses: Sequence[float], rates: Sequence[float]) -> Trend:
    """The line of least squares through the losses over the sum of the rates so far."""
    if len(losses) < 10:
        return Trend()
    spent = list(accumulate(rates))
    middle, mean = fmean(spent), fmean(losses)
    spread = math.fsum((x - middle) ** 2 for x in spent)
    if spread <= 0:
        return Trend()
    slope = math.fsum((x - middle) * (y - mean) for x, y in zip(spent, losses)) / spread
    return Trend(slope, slope * math.sqrt(spread) / max(noise(losses), 1e-12 * (abs(mean) or 1.0)))
