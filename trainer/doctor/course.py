"""How the loss of a run went: the numbers that the signs of a wrong rate compare."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean, median

from trainer.doctor.log import Log
from trainer.doctor.statistics import Block, Trend, blocks, half_spent, noise, running_medians, trend

VALIDATIONS, FALLING, SLOWLY = 6, 0.95, 0.5
"""How many validations show whether their loss falls all the time and slowly; if so, its fall is more than this share
of the way that it goes, and less than this share of its first value."""


@dataclass(frozen=True)
class Course:
    """The training losses of a log, judged against the noise of single batches.

    `start` is the level of the first losses, or the first loss where they leave it at once. `sigma` is the noise of a
    single loss; `peak` the highest median of three losses, and `peak_at` its update; `last` the median of the last
    tenth. `whole`, `early` and `late` are trends, and half of the rates is spent between the last two. `undone` is the
    part of the fall to the lowest block that is lost again at the end, and `undone_most` the largest part on the way,
    with its standard errors in `undone_score`. `risen` is the sum of the rises from block to block that are more than
    noise, where the rate does not rise, as a share of the fall. `shrunk` is the gradient norm of the last fifth as a
    multiple of the first five. `falls` says that the validation loss falls all the time. `steady` is its late slope
    over its early one, both per unit of rate; 0 where it does not fall all the time and slowly, and None where there
    are too few validations.
    `forgotten` is Σ ηλ, the rates times the weight decay: a weight keeps exp(-Σ ηλ) of its first value.
    """

    losses: Sequence[float]
    start: float
    sigma: float
    peak: float
    peak_at: int
    last: float
    parts: Sequence[Block]
    whole: Trend
    early: Trend
    late: Trend
    undone: float
    undone_most: float
    undone_score: float
    risen: float
    shrunk: float
    falls: bool
    steady: float | None
    forgotten: float

    @classmethod
    def of(cls, log: Log) -> "Course":
        """From the finite losses of a log."""
        losses, known = log.loss.values, dict(zip(log.rate.updates, log.rate.values))
        rates = [known.get(t, math.nan) for t in log.loss.updates]
        rates = [1.0] * len(losses) if any(map(math.isnan, rates)) else rates
        parts, count = blocks(losses), len(losses)
        quiet = min(noise(losses[part.begin : part.end]) for part in parts)
        ends = noise(losses[: max(10, count // 20)]), noise(losses[-(count // 5) :])
        sigma = max(quiet, min(ends))
        few = median(losses[: max(5, count // 50)])
        start = few if abs(few - losses[0]) < 4 * sigma else losses[0]
        tops = running_medians(losses, 3)
        peak = losses.index(max(tops), tops.index(max(tops)))
        half = min(max(half_spent(rates), 10), count - 10)
        return cls(
            losses, start, sigma, losses[peak], log.loss.updates[peak], median(losses[-(count // 10) :]),
            parts, trend(losses, rates), trend(losses[:half], rates[:half]), trend(losses[half:], rates[half:]),
            *_undone(parts, start), _risen(parts, start, rates), _shrunk(log), _falls(log),
            _steady(log, start, sigma),
            sum(known.values()) * log.weight_decay,
        )  # fmt: skip

    @property
    def lowest(self) -> float:
        """The least median of a block."""
        return min(part.middle for part in self.parts)

    @property
    def fallen(self) -> float:
        """The fall from the start to the lowest block, as a share of the start."""
        return 1 - self.lowest / self.start

    @property
    def at_once(self) -> float:
        """The part of the fall to the last loss that is over in the median of the first block."""
        return (self.start - self.parts[0].middle) / max(self.start - self.last, 1e-12)

    @property
    def above(self) -> float:
        """How far the second half lies above the start, in standard errors of the start."""
        return (fmean(self.losses[len(self.losses) // 2 :]) - self.start) / max(self.sigma / math.sqrt(5), 1e-12)


def _undone(parts: Sequence[Block], start: float) -> tuple[float, float, float]:
    """The shares of the fall that are lost at the end and at most, and the standard errors of the latter."""
    lowest = min(parts, key=lambda part: part.middle)
    fall = start - lowest.middle
    later = [part for part in parts if part.begin > lowest.begin]
    if fall <= 0 or not later:
        return 0.0, 0.0, 0.0
    worst = max(later, key=lambda part: part.middle)
    rise = worst.middle - lowest.middle
    score = rise / max(math.hypot(worst.error, lowest.error), 1e-12)
    return (parts[-1].middle - lowest.middle) / fall, rise / fall, score


def _risen(parts: Sequence[Block], start: float, rates: Sequence[float]) -> float:
    """The rises of two standard errors and more, where the rate does not rise, as a share of the fall."""
    fall = start - min(part.middle for part in parts)
    rises = [
        after.middle - before.middle
        for before, after in pairwise(parts)
        if rates[after.begin] <= 1.001 * rates[before.begin]
        and after.middle - before.middle > 2 * math.hypot(before.error, after.error)
    ]
    return sum(rises) / fall if fall > 0 else 0.0


def _shrunk(log: Log) -> float:
    norms = log.finite("train/grad_norm").values
    first = median(norms[:5]) if norms else 0.0
    return median(norms[-max(1, len(norms) // 5) :]) / first if first > 0 else 1.0


def _falls(log: Log) -> bool:
    values = log.finite("val/loss").values
    path = math.fsum(abs(b - a) for a, b in pairwise(values))
    return len(values) >= VALIDATIONS and values[0] - values[-1] > FALLING * path


def _steady(log: Log, start: float, sigma: float) -> float | None:
    valid, rates = log.finite("val/loss"), log.rate
    if len(valid) < VALIDATIONS or not len(rates):
        return None
    sums = list(accumulate(rates.values))
    spent = [sums[max(0, bisect_right(rates.updates, t) - 1)] for t in valid.updates]
    middle = min(range(1, len(spent) - 1), key=lambda i: abs(2 * spent[i] - spent[0] - spent[-1]))
    first, fall = valid.values[0], valid.values[0] - valid.values[-1]
    soon = start - first > max(fall, 3 * sigma)  # most of it fell before the first validation
    if soon or not (spent[0] < spent[middle] < spent[-1] and _falls(log) and fall < SLOWLY * first):
        return 0.0
    early, late = (
        (valid.values[b] - valid.values[a]) / (spent[b] - spent[a]) for a, b in ((0, middle), (middle, len(spent) - 1))
    )
    return late / early if early < 0 else 0.0
