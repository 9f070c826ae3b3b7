"""Which short trainings come next, and who wins: pure functions of the costs so far. Less cost is better.

A stage trains points of a lattice for the same number of updates. It walks on until the best point has a worse
neighbour on each side, then repeats with more seeds what may still win. All is decided by the costs alone, so a stage
that was interrupted goes on where it stopped.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trainer.measure.noise_interval import student

Point = tuple[int, ...]
Costs = Mapping[tuple[Point, int], float]
"""The cost of each training by point and seed; infinite where it broke."""

FEW = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
"""Student's t at 95 %, one-sided, for 1 to 10 degrees of freedom."""
LEVEL = 0.001
"""Scores that differ by less than this share are level; the walk does not go on along level ground."""
REACH = 2.0
"""While the noise is not known, a point may win if its cost is less than this factor above the best one's."""


def one_sided(free: int) -> float:
    """Student's t at 95 %, one-sided, which is that of a two-sided interval at 90 %.

    >>> [round(one_sided(free), 3) for free in (1, 10, 30)]
    [6.314, 1.812, 1.697]
    """
    return FEW[free - 1] if free <= len(FEW) else student(0.9, free)


@dataclass(frozen=True)
class Stage:
    """Points `step` apart, trained for `updates` updates with each of `seeds`.

    `most` is the largest number of points that do not break, `room` that of trainings. `bounds` are the lowest and
    highest point of each axis. `doubtful`: with the other seeds train all that may win, not only the best point and its
    neighbours.
    """

    updates: int
    step: int
    start: tuple[Point, ...]
    seeds: tuple[int, ...]
    bounds: tuple[tuple[int, int], ...]
    most: int = 24
    room: int = 1000
    doubtful: bool = True

    def neighbours(self, point: Point) -> list[Point]:
        """The points around one, diagonal ones too, inside the bounds."""
        moves = itertools.product((-self.step, 0, self.step), repeat=len(point))
        around = [tuple(a + b for a, b in zip(point, move)) for move in moves if any(move)]
        return [one for one in around if self._inside(one)]

    def _inside(self, point: Point) -> bool:
        return all(low <= a <= high for a, (low, high) in zip(point, self.bounds))


@dataclass(frozen=True)
class Table:
    """The costs of a stage as an additive model: cost(point, seed) = score(point) + offset(seed) + noise.

    With paired seeds the offset of a seed drops out of every comparison. `noise` is the standard deviation of one
    training, from `free` degrees of freedom; None where no point but one has two seeds.
    """

    scores: dict[Point, float]
    counts: dict[Point, int]
    noise: float | None
    free: int

    @property
    def best(self) -> Point:
        """The point with the lowest score; of equals the first."""
        return min(sorted(self.scores), key=self.scores.__getitem__)

    def excess(self, point: Point) -> float:
        """How much higher the score of a point is than the best one."""
        low = self.scores[self.best]
        return self.scores[point] - low if math.isfinite(low) else math.nan

    def error(self, point: Point) -> float | None:
        """The standard error of the excess; None where the noise is not known."""
        if self.noise is None:
            return None
        return self.noise * math.sqrt(1 / self.counts[point] + 1 / self.counts[self.best])

    def may_win(self, point: Point) -> bool:
        """Whether a one-sided t-test at 95 % does not reject that a point is as good as the best one."""
        excess, error = self.excess(point), self.error(point)
        if not math.isfinite(excess):
            return False
        if error is None:
            return excess < (REACH - 1) * abs(self.scores[self.best])
        return excess <= one_sided(self.free) * error


def table_of(costs: Costs) -> Table:
    """The scores of all points. A point that broke with one seed has an infinite score."""
    by_point: dict[Point, dict[int, float]] = {}
    for (point, seed), cost in sorted(costs.items()):
        by_point.setdefault(point, {})[seed] = cost
    finite = {point: row for point, row in by_point.items() if all(map(math.isfinite, row.values()))}
    offsets = _offsets(finite)
    scores = dict.fromkeys(by_point, math.inf)
    scores |= {point: fmean(cost - offsets[seed] for seed, cost in row.items()) for point, row in finite.items()}
    noise, free = _noise(finite, scores, offsets)
    return Table(scores, {point: len(row) for point, row in by_point.items()}, noise, free)


def _near_best(rows: Mapping[Point, Mapping[int, float]]) -> list[Point]:
    """The half of the points with the lowest cost in the first seed, at least three: of others the spread is larger."""
    first = {point: row[min(row)] for point, row in rows.items() if len(row) > 1}
    return sorted(first, key=first.__getitem__)[: max(3, len(first) // 2)]


def _offsets(rows: Mapping[Point, Mapping[int, float]]) -> dict[int, float]:
    """How much higher the costs of each seed are than those of the first one, over the points that have both."""
    seeds = sorted({seed for row in rows.values() for seed in row})
    offsets = dict.fromkeys(seeds, 0.0)
    near = _near_best(rows)
    for seed in seeds[1:]:
        pairs = [rows[point][seed] - rows[point][seeds[0]] for point in near if seed in rows[point]]
        offsets[seed] = fmean(pairs) if pairs else 0.0
    return offsets


def _noise(
    rows: Mapping[Point, Mapping[int, float]], scores: Mapping[Point, float], offsets: Mapping[int, float]
) -> tuple[float | None, int]:
    near = _near_best(rows)
    seeds = {seed for point in near for seed in rows[point]}
    residuals = [cost - scores[point] - offsets[seed] for point in near for seed, cost in rows[point].items()]
    free = len(residuals) - len(near) - len(seeds) + 1
    if not residuals or free < 1:
        return None, 0
    return math.sqrt(sum(r * r for r in residuals) / free), free


def next_trainings(stage: Stage, costs: Costs) -> list[tuple[Point, int]]:
    """The trainings to make next, as point and seed; none where the stage is over."""
    return _wanted(stage, costs)[: max(stage.room - len(costs), 0)]


def _wanted(stage: Stage, costs: Costs) -> list[tuple[Point, int]]:
    first = stage.seeds[0]
    if missing := [point for point in stage.start if (point, first) not in costs]:
        return [(point, first) for point in missing]
    table = table_of(costs)
    room = stage.most - sum(map(math.isfinite, table.scores.values()))
    if all(map(math.isinf, table.scores.values())):
        return [(point, first) for point in _lower(stage, table.scores)[: max(room, 0)]]
    around = [point for point in stage.neighbours(table.best) if not _levels_out(table, point)]
    if missing := [point for point in around if point not in table.scores][: max(room, 0)]:
        return [(point, first) for point in missing]
    return _repeats(stage, table, costs)


def _levels_out(table: Table, point: Point) -> bool:
    """Whether the walk to a point leads along level ground: the two points behind the best one are as good."""
    best = table.best
    behind = [tuple(b - n * (p - b) for b, p in zip(best, point)) for n in (1, 2)]
    return all(one in table.scores and table.excess(one) <= LEVEL * abs(table.scores[best]) for one in behind)


def _lower(stage: Stage, points: Iterable[Point]) -> list[Point]:
    """Where every point broke: the next one with a lower first number."""
    lowest = min(points)
    below = (lowest[0] - 2 * stage.step, *lowest[1:])
    return [below] if below[0] >= stage.bounds[0][0] else []


def _repeats(stage: Stage, table: Table, costs: Costs) -> list[tuple[Point, int]]:
    """With the next seed, the points that may still win, and the best neighbours, whose distance tells the regret."""
    around = sorted(stage.neighbours(table.best), key=lambda point: table.scores.get(point, math.inf))
    compared = [table.best, *(point for point in around[:2] if math.isfinite(table.scores.get(point, math.inf)))]
    others = [point for point in table.scores if point not in compared and table.may_win(point)] * stage.doubtful
    for seed in stage.seeds[1:]:
        if missing := [point for point in compared if (point, seed) not in costs]:
            return [(point, seed) for point in missing]
        if missing := [point for point in others if (point, seed) not in costs]:
            return [(point, seed) for point in missing]
    return []


def vertex(table: Table, step: int, axis: int = 0) -> float:
    """The lowest place of the parabola through the best point and its neighbours along an axis, in lattice steps.

    It lies at most half a step beside the best point. Where a neighbour is missing, it is the best point itself; where
    a neighbour broke, the parabola is steep there, and it lies half a step to the other side at most.
    """
    best = table.best
    low, high = (tuple(b + sign * step * (i == axis) for i, b in enumerate(best)) for sign in (-1, 1))
    if low not in table.scores or high not in table.scores:
        return float(best[axis])
    middle, below, above = (table.scores[point] for point in (best, low, high))
    if math.isinf(below) and math.isinf(above):
        return float(best[axis])
    if math.isinf(above) or math.isinf(below):
        return best[axis] + (-0.25 if math.isinf(above) else 0.25) * step
    bend = below - 2 * middle + above
    return best[axis] + (step * 0.5 * (below - above) / bend if bend > 0 else 0.0)


def interval(table: Table, axis: int = 0) -> tuple[int | None, int | None]:
    """The nearest points below and above the best one, along an axis, that a t-test says to be worse; None: none is."""
    best = table.best
    line = [point for point in table.scores if all(i == axis or point[i] == best[i] for i in range(len(best)))]
    worse = [point[axis] for point in line if point != best and _is_worse(table, point)]
    below, above = [p for p in worse if p < best[axis]], [p for p in worse if p > best[axis]]
    return max(below, default=None), min(above, default=None)


def _is_worse(table: Table, point: Point) -> bool:
    return math.isinf(table.scores[point]) or (table.noise is not None and not table.may_win(point))


def rivals(table: Table, step: int, share: float) -> list[Point]:
    """Points apart from the best one and its neighbours whose scores are worse by at most `share` of the best one.

    Of one axis, the lowest and the highest of them: a longer training may take the best place there.
    """
    best, near = table.best, share * abs(table.scores[table.best])
    apart = [one for one in sorted(table.scores) if abs(one[0] - best[0]) > step and table.excess(one) <= near]
    return [one for one in apart if one in (apart[0], apart[-1])]


def is_flat(table: Table) -> bool:
    """Whether no point is worse than the best one by more than the noise: the trainings were too short to tell.

    With one seed the noise is not known, and only level scores are flat.
    """
    if table.noise is None:
        return all(table.excess(point) <= LEVEL * abs(table.scores[table.best]) for point in table.scores)
    return not any(_is_worse(table, point) for point in table.scores if point != table.best)


def regrets(table: Table, points: Sequence[Point]) -> dict[Point, tuple[float, float | None]]:
    """By how much each point is worse than the best one, and the standard error, as shares of the best score."""
    low = abs(table.scores[table.best]) or math.nan
    return {
        point: (table.excess(point) / low, None if (error := table.error(point)) is None else error / low)
        for point in points
    }
