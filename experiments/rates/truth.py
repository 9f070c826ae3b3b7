"""The true losses of a task by the rate: trainings at full length with seeds 0 and 1, on a grid of quarter-decades.

Half-decades are trained until the best one is inside, then the quarter-decades within 3/4 of a decade of it. Level
rates, whose losses are nearly as low as the best one's, get two more seeds, which decide. A rate is trained once: what
an earlier start has trained is taken from its folder.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.rates.tasks import TASKS, composed
from trainer.config.resolve import resolve
from trainer.config.settings import settings_of
from trainer.config.variants import for_tuning
from trainer.files.atomic import write_text
from trainer.tools.tune.axes import AXES
from trainer.tools.tune.members import Member, Members
from trainer.tools.tune.race import Point, Stage, next_trainings, table_of

SEEDS = (0, 1)
MORE = (2, 3)
"""Further seeds of the rates among which the best one is chosen."""
LEVEL = 0.02
"""Rates are level whose mean loss is at most this share above the least."""
GRID_RUNS = 26
"""What a grid costs in whole runs: quarter-decades over three decades, with two seeds."""
BESIDE = 3
"""Points of the fine grid on each side of the best half-decade."""


class Truth:
    """The true losses of the task of that name, in the folder `root`/NAME."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.overrides, self.folder = name, TASKS[name], root / name
        cfg = composed(name)
        settings = settings_of(cfg)
        resolved = resolve(settings)
        self.updates, self.configured = resolved.horizon.total, resolved.plan.policy.base_lr
        self.members = Members(for_tuning(cfg), self.overrides, self.folder / "grid", ["cadence", "train"])

    def losses(self, rate: float) -> list[float]:
        """The validation losses of a rate at the end of the whole run, by seed; infinite where training broke."""
        return [self._cost((f"optimizer.lr={rate:.6g}",), seed) for seed in SEEDS]

    def loss(self, rate: float) -> float:
        """Their mean."""
        return fmean(self.losses(rate))

    def regret(self, rate: float) -> float:
        """By how much the mean loss of a rate is above the least of the grid, as a share."""
        return self.loss(rate) / min(self.grid().values()) - 1.0

    def grid(self) -> dict[float, float]:
        """The mean losses of the grid by the rate, the half-decades of the walk among them."""
        path = self.folder / "truth.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({"task": self.name, "losses": sorted(self._measured().items())}) + "\n")
        recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return dict(map(tuple, recorded["losses"]))

    @property
    def best(self) -> float:
        """The rate of the grid with the least mean loss, and of level ones that with the least mean of four seeds."""
        means = self.level_losses()
        return min(means, key=means.__getitem__)

    def level_losses(self) -> dict[float, float]:
        """The mean loss of each level rate over four seeds."""
        path, losses = self.folder / "level.json", list[tuple[float, float]]()
        if not path.exists():
            for rate in self.level():
                words = (f"optimizer.lr={rate:.6g}",)
                losses.append((rate, fmean(self._cost(words, seed) for seed in (*SEEDS, *MORE))))
            write_text(path, json.dumps(losses) + "\n")
        return dict(map(tuple, json.loads(path.read_text(encoding="utf-8"))))

    def level(self) -> list[float]:
        """The level rates, in order."""
        grid = self.grid()
        return sorted(rate for rate, loss in grid.items() if loss <= (1 + LEVEL) * min(grid.values()))

    def _measured(self) -> dict[float, float]:
        axis, costs = AXES["lr"], dict[tuple[Point, int], float]()
        stage = Stage(self.updates, 2, ((axis.point(self.configured) // 2 * 2,),), SEEDS, (axis.bounds,))
        while todo := next_trainings(stage, costs):
            costs |= self._trained(todo)
        (best,) = table_of(costs).best
        fine = [((place,), seed) for place in range(best - BESIDE, best + BESIDE + 1) for seed in SEEDS]
        costs |= self._trained([key for key in fine if key not in costs])
        points = {point for point, _ in costs if all((point, seed) in costs for seed in SEEDS)}
        return {axis.at(point[0]): fmean(costs[point, seed] for seed in SEEDS) for point in points}

    def _trained(self, todo: Sequence[tuple[Point, int]]) -> dict[tuple[Point, int], float]:
        words = [(AXES["lr"].override(point[0]),) for point, _ in todo]
        members = [Member(one, seed, self.updates) for one, (_, seed) in zip(words, todo)]
        return {key: made.cost for key, made in zip(todo, self.members.train_all(members))}

    def _cost(self, words: tuple[str, ...], seed: int) -> float:
        return self.members.train(Member(words, seed, self.updates)).cost
