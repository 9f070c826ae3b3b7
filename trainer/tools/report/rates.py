"""What a grid of learning rates says: the optimum with its interval, the edge, the width. Pure functions of numbers.

A *cost* is a metric with its sign turned so that less is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as fisher
from scipy.stats import t as student

from trainer.tools.report.comparison import grouped

RATES_TO_FIT = 4
"""A fit needs one learning rate more than a parabola has coefficients."""
NEAR, STEPS, LOPSIDED = 0.6, 2, 8.0
"""A fit takes the rates within so many decades of the best one, and so many steps of the grid to each side.

An end that rises so many times as high as the other end is left out: there training begins to break.
"""
RATES_OF_GRID = 3
"""With fewer values than this, every value is an edge, and an edge says nothing."""
REACH = 10.0
"""A failed value beyond this factor outside a grid says nothing about the next value."""


class Undetermined(ValueError):
    """The numbers do not determine the answer; the message says why."""


@dataclass(frozen=True)
class Optimum:
    """The rate at which the fitted parabola is least, with its interval; cost = a + b·x + c·x², x = log10(rate).

    `window` is the lowest and highest rate of the fit, `points` the number of runs in it.
    """

    rate: float
    low: float
    high: float
    coefficients: tuple[float, float, float]
    window: tuple[float, float]
    points: int

    def cost(self, rate: float) -> float:
        """The parabola at a rate."""
        a, b, c = self.coefficients
        x = math.log10(rate)
        return a + b * x + c * x * x


def mean_costs(rates: Sequence[float], costs: Sequence[float]) -> tuple[list[float], list[float]]:
    """The distinct rates in order, and the mean cost at each."""
    groups = grouped(zip(rates, costs, strict=True))
    ordered = sorted(groups)
    return ordered, [fmean(groups[rate]) for rate in ordered]


def optimum(rates: Sequence[float], costs: Sequence[float], level: float = 0.95) -> Optimum:
    """Fit a parabola in log10 of the rate around the best one, by least squares. Each run is a point of its own.

    The interval holds every x at which a t-test does not reject that the slope b + 2·c·x is zero (Fieller 1954). It
    uses no expansion. Where the curvature is not certain it has no end, and the fit is refused. Its coverage is the
    level as long as the valley stands out of the noise; where noise picks the window, the coverage is lower.

    Raises:
        Undetermined: fewer than 4 rates, the best at the edge, no convex curve, a curve too flat for its noise, or
            one that is no parabola.
    """
    grid, means = mean_costs(rates, costs)
    if len(grid) < RATES_TO_FIT:
        raise Undetermined(f"{len(grid)} learning rates, and a fit needs {RATES_TO_FIT}")
    best = means.index(min(means))
    if best in (0, len(grid) - 1):
        raise Undetermined(f"the best learning rate, {grid[best]:g}, is at the edge of the grid")
    used = fit_window(grid, means, best)
    pairs = [(math.log10(rate), cost) for rate, cost in zip(rates, costs) if rate in used]
    if len(used) < RATES_TO_FIT:
        raise Undetermined(f"{len(used)} learning rates around the best, and a fit needs {RATES_TO_FIT}")
    middle = math.log10(grid[best])
    low, vertex, high, (a, b, c) = _fieller([x - middle for x, _ in pairs], [cost for _, cost in pairs], level)
    if not math.log10(used[0]) <= vertex + middle <= math.log10(used[-1]):
        raise Undetermined("the fitted parabola has its optimum outside the learning rates that it was fitted to")
    if high - low > math.log10(grid[-1] / grid[0]):
        raise Undetermined("the curve is too flat for its noise: the interval is wider than the grid")
    moved = (a - b * middle + c * middle**2, b - 2 * c * middle, c)
    at = [10 ** (x + middle) for x in (vertex, low, high)]
    return Optimum(at[0], at[1], at[2], moved, (used[0], used[-1]), len(pairs))


def fit_window(grid: Sequence[float], means: Sequence[float], best: int) -> list[float]:
    """The rates around the best one that the parabola is fitted to."""
    close = [i for i, rate in enumerate(grid) if abs(math.log10(rate / grid[best])) <= NEAR]
    first, last = max(0, min(close[0], best - STEPS)), min(len(grid) - 1, max(close[-1], best + STEPS))
    while last - first >= RATES_TO_FIT:
        low, high = means[first] - means[best], means[last] - means[best]
        if low > LOPSIDED * high and best - first > 1:
            first += 1
        elif high > LOPSIDED * low and last - best > 1:
            last -= 1
        else:
            break
    return list(grid[first : last + 1])


def _fieller(xs: list[float], ys: list[float], level: float) -> tuple[float, float, float, tuple[float, float, float]]:
    """The low end, the vertex and the high end, as x, and the coefficients of the parabola."""
    design = np.vander(np.array(xs), 3, increasing=True)
    values = np.array(ys)
    inverse = np.linalg.inv(design.T @ design)
    a, b, c = inverse @ design.T @ values
    if c <= 0:
        raise Undetermined("the curve is not convex around its best learning rate")
    residual = values - design @ np.array([a, b, c])
    variance, free, fits = _noise(xs, residual)
    covariance = inverse * variance
    square = float(student.ppf((1 + level) / 2, free)) ** 2
    p = 4 * (c * c - square * covariance[2, 2])
    q = 4 * (b * c - square * covariance[1, 2])
    r = b * b - square * covariance[1, 1]
    if p <= 0:
        raise Undetermined(
            "the curve is too flat for its noise: no curvature is certain"
            if fits
            else "no parabola fits the rates around the best"
        )
    root = math.sqrt(max(0.0, q * q - 4 * p * r))
    return (-q - root) / (2 * p), -b / (2 * c), (-q + root) / (2 * p), (float(a), float(b), float(c))


def _noise(xs: Sequence[float], residual: np.ndarray) -> tuple[float, int, bool]:
    """The variance of a point, its degrees of freedom, and whether the parabola fits as well as the seeds allow.

    Where an F-test says that it does not, the misfit is taken for the noise. The spread between seeds is that of the
    median rate: where training begins to break, it is far larger than around the best rate.
    """
    groups = grouped(zip(xs, residual.tolist()))
    squares = {x: sum((value - fmean(same)) ** 2 for value in same) for x, same in groups.items()}
    spreads = [squares[x] / chi2.ppf(0.5, len(same) - 1) for x, same in groups.items() if len(same) > 1]
    within, between = len(xs) - len(groups), len(groups) - 3
    total = float(residual @ residual)
    misfit = max(0.0, total - sum(squares.values())) / between
    if not within or misfit <= median(spreads) * float(fisher.ppf(0.95, between, within)):
        return total / (len(xs) - 3), len(xs) - 3, True
    return misfit, between, False


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
