"""Whether the best value of a grid lies at its edge, and how to extend the grid: pure functions of numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainer.tools.report.optimum import averaged

NEXT = 10.0
"""A failure farther than this factor beyond a grid says nothing of the next value."""
LEAST = 3
"""Values that make a grid: of two, each is an edge."""


@dataclass(frozen=True)
class Edge:
    """The best value is the grid's `side`, low or high; `margin` is how much better it is than its neighbour.

    `more` are values that carry the grid on, none where the next ones failed: there it is the end of what trains.
    """

    side: str
    best: float
    margin: float
    more: tuple[float, ...]


def edge(values: Sequence[float], costs: Sequence[float], failed: Sequence[float] = ()) -> Edge | None:
    """The edge at which the mean cost is least; None where it is least inside, or there are fewer than three values."""
    grid, means = averaged(values, costs)
    best = means.index(min(means)) if means else 0
    if len({*grid, *failed}) < LEAST or len(grid) < 2 or 0 < best < len(grid) - 1:
        return None
    side = "low" if best == 0 else "high"
    beyond = [value for value in near(failed, grid) if (value < grid[0] if side == "low" else value > grid[-1])]
    margin = (means[1] - means[0]) if side == "low" else (means[-2] - means[-1])
    return Edge(side, grid[best], margin, () if beyond else tuple(extended(grid, side)))


def near(failed: Sequence[float], grid: Sequence[float]) -> list[float]:
    """The failed values that lie in the grid or no more than a decade beyond it."""
    return [
        value for value in failed if min(grid) / NEXT <= value * (1 + 1e-9) and value <= max(grid) * NEXT * (1 + 1e-9)
    ]


def extended(grid: Sequence[float], side: str, count: int = 2) -> list[float]:
    """The next `count` values beyond an end, in order.

    >>> extended([0.01, 0.03, 0.1, 0.3, 1.0], "high")
    [3.0, 10.0]
    >>> extended([16, 32, 64], "low")
    [4.0, 8.0]
    >>> extended([0.0, 0.5, 1.0], "high")
    [1.5, 2.0]
    """
    ordered = list(grid) if side == "high" else list(grid)[::-1]
    period = _decade(sorted(grid))
    for _ in range(count):
        if period:
            ordered.append(ordered[-period] * (10.0 if side == "high" else 0.1))
        elif min(grid) > 0:
            ordered.append(ordered[-1] * ordered[-1] / ordered[-2])
        else:
            ordered.append(2 * ordered[-1] - ordered[-2])
    return sorted(float(f"{value:.3g}") for value in ordered[len(grid) :])


def finer(grid: Sequence[float], best: float) -> list[float]:
    """Four rates between a best one inside the grid and its neighbours, evenly in the log.

    >>> finer([0.01, 0.1, 1.0], 0.1)
    [0.0215, 0.0464, 0.215, 0.464]
    """
    at = list(grid).index(best)
    pairs = ((grid[at - 1], 1 / 3), (grid[at - 1], 2 / 3), (grid[at + 1], 2 / 3), (grid[at + 1], 1 / 3))
    return [float(f"{end * (best / end) ** share:.3g}") for end, share in pairs]


def _decade(grid: Sequence[float]) -> int:
    """After how many values the grid is ten times itself, as 1, 3, 10, 30 is after two; 0 where it is not."""
    if not grid or min(grid) <= 0:
        return 0
    for period in range(1, len(grid)):
        if all(math.isclose(b, 10 * a, rel_tol=1e-6) for a, b in zip(grid, grid[period:])):
            return period
    return 0


def geometric(grid: Sequence[float]) -> bool:
    """Whether values are better seen on a log axis: all above zero, and the largest is ten times the least or more."""
    return bool(grid) and min(grid) > 0 and max(grid) >= 10 * min(grid) or _doubling(grid)


def _doubling(grid: Sequence[float]) -> bool:
    ordered = sorted(grid)
    return len(ordered) > 2 and ordered[0] > 0 and all(b >= 1.9 * a for a, b in pairwise(ordered))
