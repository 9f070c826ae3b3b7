"""How sensitive a metric is to the learning rate: a pure function of numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainer.tools.report.optimum import Undetermined, averaged


@dataclass(frozen=True)
class Width:
    """The rates whose cost stays within `within` of the best; an end is open where the grid ends before it does."""

    low: float
    high: float
    within: float
    open_low: bool
    open_high: bool

    @property
    def decades(self) -> float:
        """How wide it is in decades: a lower bound where an end is open."""
        return math.log10(self.high / self.low)


def sensitivity(
    rates: Sequence[float], costs: Sequence[float], within: float = 0.05, failed: Sequence[float] = ()
) -> Width:
    """How far the rate may move from the best until the mean cost is worse by `within` times its size.

    Between two rates of the grid the cost is a line in log10. A rate of `failed` bounds the range at its neighbour.

    Raises:
        Undetermined: fewer than two rates, or a best cost of zero.
    """
    grid, means = averaged(rates, costs)
    if len(grid) < 2:
        raise Undetermined("one learning rate says nothing of the range around it")
    best = means.index(min(means))
    if means[best] == 0:
        raise Undetermined("the best value is zero, and nothing is a percentage of it")
    limit = means[best] + within * abs(means[best])
    upward = _until(list(zip(grid, means))[best:], limit)
    downward = _until(list(zip(grid, means))[best::-1], limit)
    return Width(
        low=downward[0],
        high=upward[0],
        within=within,
        open_low=downward[1] and not any(rate < grid[0] for rate in failed),
        open_high=upward[1] and not any(rate > grid[-1] for rate in failed),
    )


def _until(points: Sequence[tuple[float, float]], limit: float) -> tuple[float, bool]:
    """The rate at which the cost first passes the limit, and whether it never does."""
    for (rate, cost), (further, above) in pairwise(points):
        if above > limit:
            share = (limit - cost) / (above - cost)
            return rate * (further / rate) ** share, False
    return points[-1][0], True
