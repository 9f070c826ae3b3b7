"""The answer of a tune: the numbers, their interval, the regret of the neighbours, the cost, the override to paste."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trainer.tools.tune.axes import PER_DECADE, Axis
from trainer.tools.tune.race import Point, Table, interval, is_flat, regrets, table_of, vertex


@dataclass(frozen=True)
class StageResult:
    """The costs of a stage by point and seed, and how long its trainings were.

    A stage with one seed tells no noise; then it is that of `like`, an earlier stage.
    """

    updates: int
    step: int
    costs: Mapping[tuple[Point, int], float]
    like: Table | None = None

    @cached_property
    def table(self) -> Table:
        """The scores."""
        made = table_of(self.costs)
        if made.noise is not None or self.like is None:
            return made
        return replace(made, noise=self.like.noise, free=self.like.free)


@dataclass(frozen=True)
class Answer:
    """What a tune has found. `ratio`: the rate of a second optimizer over the first one's, where there is one."""

    axes: Sequence[Axis]
    stages: Sequence[StageResult]
    fine: Table
    more: Sequence[str]
    notes: Sequence[str]
    changes: Sequence[str]
    total: int
    made: int
    seconds: float
    ratio: float | None = None

    @cached_property
    def distinct_stages(self) -> list[StageResult]:
        """The stages without one that had no room for a training that the stage before it had not made."""
        pairs = zip([None, *self.stages], self.stages)
        return [
            stage
            for before, stage in pairs
            if not before or (before.updates, before.costs) != (stage.updates, stage.costs)
        ]

    @cached_property
    def places(self) -> tuple[float, ...]:
        """The answer on the lattice: the vertex of each axis."""
        return tuple(vertex(self.fine, self.stages[-1].step, i) for i in range(len(self.axes)))

    @property
    def values(self) -> tuple[float, ...]:
        """The answer, with three digits."""
        return tuple(float(f"{axis.at(place):.3g}") for axis, place in zip(self.axes, self.places))

    @property
    def overrides(self) -> list[str]:
        """What to paste."""
        words = [f"{axis.key}={axis.template.format(value)}" for axis, value in zip(self.axes, self.values)]
        if self.ratio is not None and self.axes[0].name == "lr":
            words.append(f"groups.optimizer.lr={self.values[0] * self.ratio:.3g}")
        return [*words, *self.more]

    def interval(self, axis: int = 0) -> tuple[float | None, float | None]:
        """The nearest values below and above that are worse beyond the noise; None where none was met.

        Of the last stage, else of the one before it, where the answer lies inside of it; but an earlier stage does not
        end the side on which the last one has no point.
        """
        ends: list[int | None] = [None, None]
        open_side = self.open_side(axis)
        for stage in reversed(self.stages):
            low_end, high_end = interval(stage.table, axis)
            if ends[0] is None and low_end is not None and low_end < self.places[axis] and open_side != "below":
                ends[0] = low_end
            if ends[1] is None and high_end is not None and high_end > self.places[axis] and open_side != "above":
                ends[1] = high_end
        low, high = (None if end is None else self.axes[axis].at(end) for end in ends)
        return low, high

    def open_side(self, axis: int = 0) -> str:
        """The side of the winner, "above" or "below", on which the last stage has no point; empty where both have."""
        place, line = self.fine.best[axis], self._line(axis)
        return "above" if place == line[-1] else "below" if place == line[0] else ""

    def _line(self, axis: int) -> list[int]:
        """The places of the last stage along an axis, with the other number of the winner."""
        best = self.fine.best
        return sorted(p[axis] for p in self.fine.scores if all(i == axis or a == best[i] for i, a in enumerate(p)))

    @property
    def flat(self) -> bool:
        """Whether nothing in the fine stage is worse than the winner beyond the noise."""
        return is_flat(self.fine)

    def neighbours(self) -> list[tuple[tuple[float, ...], float, float | None]]:
        """The nearest points of the last stage on each side of the winner, along each axis.

        Each with its values, its regret and the standard error, as shares.
        """
        best, beside = self.fine.best, []
        for axis in range(len(best)):
            line = self._line(axis)
            at = line.index(best[axis])
            beside += [(*best[:axis], place, *best[axis + 1 :]) for place in (*line[:at][-1:], *line[at + 1 :][:1])]
        return [(self._values(point), *regret) for point, regret in regrets(self.fine, beside).items()]

    @property
    def runs(self) -> float:
        """The cost in whole runs."""
        return self.made / self.total

    @property
    def grid_runs(self) -> int:
        """What a grid of quarter-decades with two seeds at full length would cost over the same span."""
        points = {point for stage in self.stages for point, _ in stage.costs}
        size = 2
        for axis in range(len(self.axes)):
            places = [point[axis] for point in points]
            size *= max(places) - min(places) + 1
        return size

    def _values(self, point: Point) -> tuple[float, ...]:
        return tuple(axis.at(place) for axis, place in zip(self.axes, point))

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        stages = [
            {
                "updates": stage.updates,
                "decades": stage.step / PER_DECADE,
                "noise": stage.table.noise,
                "trainings": [
                    {"values": self._values(point), "seed": seed, "cost": cost}
                    for (point, seed), cost in stage.costs.items()
                ],
            }
            for stage in self.distinct_stages
        ]
        return {
            "of": [axis.key for axis in self.axes],
            "values": self.values,
            "intervals": [self.interval(i) for i in range(len(self.axes))],
            "override": self.overrides,
            "neighbours": [
                {"values": values, "regret": regret, "error": error} for values, regret, error in self.neighbours()
            ],
            "flat": self.flat,
            "updates": self.made,
            "runs": self.runs,
            "grid_runs": self.grid_runs,
            "seconds": self.seconds,
            "notes": list(self.notes),
            "changes": list(self.changes),
            "stages": stages,
        }
