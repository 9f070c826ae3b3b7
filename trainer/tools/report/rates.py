"""What a grid of learning rates says of its edge and its width. Pure functions of numbers.

A *cost* is a metric with its sign turned so that less is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from trainer.tools.report.comparison import grouped

RATES_OF_GRID = 3
"""With fewer values than this, every value is an edge, and an edge says nothing."""
REACH = 10.0
"""A failed value beyond this factor outside a grid says nothing about the next value."""


def mean_costs(rates: Sequence[float], costs: Sequence[float]) -> tuple[list[float], list[float]]:
    """The distinct rates in order, and the mean cost at each."""
    groups = grouped(zip(rates, costs, strict=True))
    ordered = sorted(groups)
    return ordered, [fmean(groups[rate]) for rate in ordered]


@dataclass(frozen=True)
class Width:
    """The rates whose cost stays within `within` of the best; an end is open where the grid ends first."""

    low: float
    high: float
    within: float
    open_low: bool
    open_high: bool

    @property
    def decades(self) -> float:
        """The width in decades: a lower bound where an end is open."""
        return math.log10(self.high / self.low)


def width(
    rates: Sequence[float], costs: Sequence[float], within: float = 0.05, failed: Sequence[float] = ()
) -> Width | None:
    """How far the rate may move from the best until the mean cost is worse by `within` times its size.

    Between two rates of the grid the cost is a line in log10. A failed rate closes the range at its neighbour. None
    with fewer than two rates, or a best cost of zero.
    """
    grid, means = mean_costs(rates, costs)
    best = means.index(min(means))
    if len(grid) < 2 or means[best] == 0:
        return None
    limit = means[best] + within * abs(means[best])
    upward = _crossing(list(zip(grid, means))[best:], limit)
    downward = _crossing(list(zip(grid, means))[best::-1], limit)
    return Width(
        low=downward[0],
        high=upward[0],
        within=within,
        open_low=downward[1] and not any(rate < grid[0] for rate in failed),
        open_high=upward[1] and not any(rate > grid[-1] for rate in failed),
    )


def _crossing(points: Sequence[tuple[float, float]], limit: float) -> tuple[float, bool]:
    """The rate at which the cost first passes the limit, and whether it never does."""
    for (rate, cost), (further, above) in pairwise(points):
        if above > limit:
            share = (limit - cost) / (above - cost)
            return rate * (further / rate) ** share, False
    return points[-1][0], True


@dataclass(frozen=True)
class Edge:
    """The best value is the first or last of its grid: `side` is low or high, `margin` what its neighbour costs more.

    `extension` holds the values that carry the grid on; it is empty where the next values failed.
    """

    side: str
    best: float
    margin: float
    extension: tuple[float, ...]


def find_edge(values: Sequence[float], costs: Sequence[float], failed: Sequence[float] = ()) -> Edge | None:
    """The edge with the least mean cost. None where the least is inside, or there are fewer than three values."""
    grid, means = mean_costs(values, costs)
    best = means.index(min(means)) if means else 0
    if len({*grid, *failed}) < RATES_OF_GRID or len(grid) < 2 or 0 < best < len(grid) - 1:
        return None
    side = "low" if best == 0 else "high"
    beyond = [value for value in near(failed, grid) if (value < grid[0] if side == "low" else value > grid[-1])]
    margin = (means[1] - means[0]) if side == "low" else (means[-2] - means[-1])
    return Edge(side, grid[best], margin, () if beyond else tuple(extend(grid, side)))


def near(failed: Sequence[float], grid: Sequence[float]) -> list[float]:
    """The failed values that lie in the grid or no more than a decade beyond it."""
    low, high = min(grid) / REACH, max(grid) * REACH
    return [value for value in failed if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]


def extend(grid: Sequence[float], side: str, count: int = 2) -> list[float]:
    """The next `count` values beyond an end, in order.

    >>> extend([0.01, 0.03, 0.1, 0.3, 1.0], "high")
    [3.0, 10.0]
    >>> extend([16, 32, 64], "low")
    [4.0, 8.0]
    >>> extend([0.0, 0.5, 1.0], "high")
    [1.5, 2.0]
    """
    ordered = list(grid) if side == "high" else list(grid)[::-1]
    period = _values_per_decade(sorted(grid))
    for _ in range(count):
        if period:
            ordered.append(ordered[-period] * (10.0 if side == "high" else 0.1))
        elif min(grid) > 0:
            ordered.append(ordered[-1] * ordered[-1] / ordered[-2])
        else:
            ordered.append(2 * ordered[-1] - ordered[-2])
    return sorted(float(f"{value:.3g}") for value in ordered[len(grid) :])


def refine(grid: Sequence[float], best: float) -> list[float]:
    """Four rates between a best one inside the grid and its neighbours, evenly in the log.

    >>> refine([0.01, 0.1, 1.0], 0.1)
    [0.0215, 0.0464, 0.215, 0.464]
    """
    at = list(grid).index(best)
    pairs = ((grid[at - 1], 1 / 3), (grid[at - 1], 2 / 3), (grid[at + 1], 2 / 3), (grid[at + 1], 1 / 3))
    return [float(f"{end * (best / end) ** share:.3g}") for end, share in pairs]


def _values_per_decade(grid: Sequence[float]) -> int:
    """After how many values the grid repeats ten times larger, as 1, 3, 10, 30 does after two; 0 where it does not."""
    if not grid or min(grid) <= 0:
        return 0
    for period in range(1, len(grid)):
        if all(math.isclose(b, 10 * a, rel_tol=1e-6) for a, b in zip(grid, grid[period:])):
            return period
    return 0


def is_geometric(grid: Sequence[float]) -> bool:
    """Whether a log axis suits the values: all above zero, and a decade apart or each about twice the one before."""
    if not grid or min(grid) <= 0:
        return False
    ordered = sorted(grid)
    doubling = len(ordered) > 2 and all(b >= 1.9 * a for a, b in pairwise(ordered))
    return ordered[-1] >= 10 * ordered[0] or doubling
