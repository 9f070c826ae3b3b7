"""Where a metric is best over the learning rate, and how sure that is: pure functions of numbers.

A *cost* is a metric turned so that less is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as fisher
from scipy.stats import t as student

LEAST = 4
"""Learning rates that a fit needs: one more than a parabola has numbers."""
NEAR, STEPS, LOPSIDED = 0.6, 2, 8.0
"""A fit takes the rates within so many decades of the best one, and so many steps of the grid to each side.

An end of them that rises so many times as high as the other is no part of a parabola: training begins to break there.
"""


class Undetermined(ValueError):
    """The numbers do not say where the optimum is; the message says why."""


@dataclass(frozen=True)
class Optimum:
    """The rate at which the fitted parabola is least, its interval, and the parabola: cost = a + b·x + c·x², x = log10.

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


def averaged(rates: Sequence[float], costs: Sequence[float]) -> tuple[list[float], list[float]]:
    """The distinct rates in order, and the mean cost at each."""
    groups: dict[float, list[float]] = {}
    for rate, cost in zip(rates, costs, strict=True):
        groups.setdefault(rate, []).append(cost)
    ordered = sorted(groups)
    return ordered, [math.fsum(groups[rate]) / len(groups[rate]) for rate in ordered]


def optimum(rates: Sequence[float], costs: Sequence[float], level: float = 0.95) -> Optimum:
    """Fit a parabola in log10 of the rate, around the best one, by least squares; seeds are points of their own.

    The interval holds every x at which a t-test does not reject that the slope b + 2·c·x is zero (Fieller 1954). It
    needs no expansion and grows without bound, which is refused, where the curvature is not certain. It covers as it
    says where the valley stands out of the noise; where noise picks the window, what is not refused covers less.

    Raises:
        Undetermined: fewer than 4 rates, the best at the edge, no convex curve, one too flat for its noise, or one
            that is no parabola.
    """
    grid, means = averaged(rates, costs)
    if len(grid) < LEAST:
        raise Undetermined(f"{len(grid)} learning rates, and a fit needs {LEAST}")
    best = means.index(min(means))
    if best in (0, len(grid) - 1):
        raise Undetermined(f"the best learning rate, {grid[best]:g}, is at the edge of the grid")
    used = window(grid, means, best)
    pairs = [(math.log10(rate), cost) for rate, cost in zip(rates, costs) if rate in used]
    if len(used) < LEAST:
        raise Undetermined(f"{len(used)} learning rates around the best, and a fit needs {LEAST}")
    middle = math.log10(grid[best])
    low, vertex, high, (a, b, c) = _fieller([x - middle for x, _ in pairs], [cost for _, cost in pairs], level)
    if not math.log10(used[0]) <= vertex + middle <= math.log10(used[-1]):
        raise Undetermined("the fitted parabola has its optimum outside the learning rates that it was fitted to")
    if high - low > math.log10(grid[-1] / grid[0]):
        raise Undetermined("the curve is too flat for its noise: the interval is wider than the grid")
    moved = (a - b * middle + c * middle**2, b - 2 * c * middle, c)
    at = [10 ** (x + middle) for x in (vertex, low, high)]
    return Optimum(at[0], at[1], at[2], moved, (used[0], used[-1]), len(pairs))


def window(grid: Sequence[float], means: Sequence[float], best: int) -> list[float]:
    """The rates that a fit around the best one takes."""
    near = [i for i, rate in enumerate(grid) if abs(math.log10(rate / grid[best])) <= NEAR]
    first, last = max(0, min(near[0], best - STEPS)), min(len(grid) - 1, max(near[-1], best + STEPS))
    while last - first >= LEAST:
        low, high = means[first] - means[best], means[last] - means[best]
        if low > LOPSIDED * high and best - first > 1:
            first += 1
        elif high > LOPSIDED * low and last - best > 1:
            last -= 1
        else:
            break
    return list(grid[first : last + 1])


def _fieller(xs: list[float], ys: list[float], level: float) -> tuple[float, float, float, tuple[float, float, float]]:
    """The interval of the vertex and the vertex, as x, and the parabola."""
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

    Where it does not, by an F-test, the misfit is taken for the noise. The spread between seeds is that of the median
    rate, for at the rate where training begins to break it is far larger than around the best.
    """
    groups: dict[float, list[float]] = {}
    for x, value in zip(xs, residual):
        groups.setdefault(x, []).append(float(value))
    squares = {x: sum((value - fmean(same)) ** 2 for value in same) for x, same in groups.items()}
    spreads = [squares[x] / chi2.ppf(0.5, len(same) - 1) for x, same in groups.items() if len(same) > 1]
    within, between = len(xs) - len(groups), len(groups) - 3
    total = float(residual @ residual)
    misfit = max(0.0, total - sum(squares.values())) / between
    if not within or misfit <= median(spreads) * float(fisher.ppf(0.95, between, within)):
        return total / (len(xs) - 3), len(xs) - 3, True
    return misfit, between, False
