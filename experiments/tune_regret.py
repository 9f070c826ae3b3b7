"""How good is `cadence tune`? Its rate against a grid of quarter-decades at full length, with the same two seeds.

    python experiments/tune_regret.py --out outputs/tune_regret              # minutes to an hour on two cores
    python experiments/tune_regret.py --tasks digits_adamw,digits_momentum

The truth of a task: trainings at full length with seeds 0 and 1, at half-decades of the rate until the mean of the best
one is inside, then at the quarter-decades within 3/4 of a decade of it. The regret of a tune: the mean validation loss
of its rate at full length with these seeds, over the least of the grid, minus 1. The cost of the tune is given in whole
runs, and as a share of a grid of quarter-decades over three decades, 26 runs. A rate of the grid is trained once: what
an earlier start has trained is taken from its folder.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from trainer.cli.compose import compose_config  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.config.resolve import horizon_of  # noqa: E402
from trainer.config.settings import settings_of  # noqa: E402
from trainer.config.variants import for_tuning  # noqa: E402
from trainer.tools.tune import command  # noqa: E402
from trainer.tools.tune.axes import AXES  # noqa: E402
from trainer.tools.tune.members import Member, Members  # noqa: E402
from trainer.tools.tune.race import Point, Stage, next_trainings, table_of  # noqa: E402

CPU = ("trainer.accelerator=cpu", "trainer.threads=1", "logger=none")
DIGITS = ("trainer.duration=10ep", *CPU)
TEXT = (
    "experiment=shakespeare_char", "data.path=${oc.env:CADENCE_DATA}/tinyshakespeare/input.txt", "model.layers=2",
    "model.width=64", "data.context=32", "data.val_fraction=0.02", "trainer.duration=600", *CPU,
)  # fmt: skip
PHOTOS = (
    "experiment=cifar10_resnet", "data.path=${oc.env:CADENCE_DATA}/cifar10", "data.train_limit=2000",
    "data.samples=2000", "data.val_samples=1000", "model.width=4", "data.batch_size=64", "trainer.duration=4ep",
    "task.monitor=loss", "task.mode=min", *CPU,
)  # fmt: skip
TASKS: dict[str, tuple[str, ...]] = {
    "digits_adamw": ("optimizer=adamw", *DIGITS),
    "digits_momentum": ("optimizer=momentum", "schedule=linear", "data.label_noise=0.2", *DIGITS),
    "digits_lion": ("optimizer=lion", *DIGITS),
    "digits_deep_sgd": ("optimizer=sgd", "model.hidden=[32,32,32,32,32]", *DIGITS),
    "digits_batchnorm": ("optimizer=nesterov", "model.norm=batch", "schedule=cosine", "warmup=linear", *DIGITS),
    "digits_adagrad": ("optimizer=adagrad", "schedule=constant", *DIGITS),
    "regression_adamw": (
        "optimizer=adamw",
        "task=regression",
        "data=synthetic_regression",
        "data.samples=1024",
        *DIGITS,
    ),
    "text_adamw": TEXT,
    "text_lion": (*TEXT, "optimizer=lion"),
    "photos_nesterov": PHOTOS,
}
SEEDS = (0, 1)
GRID_RUNS = 26
"""Quarter-decades over three decades, with two seeds."""


class Task:
    """The true losses of a task by the rate, trained at full length."""

    def __init__(self, overrides: tuple[str, ...], root: Path) -> None:
        cfg = compose_config(overrides)
        self.overrides, self.root = overrides, root
        self.members = Members(for_tuning(cfg), overrides, root / "grid", ["cadence", "train"])
        self.updates = horizon_of(settings_of(cfg)).total

    def cost(self, rate: str, seed: int) -> float:
        """The validation loss at the end of the whole run."""
        return self.members.train(Member((rate,), seed, self.updates)).cost

    def grid(self, middle: float) -> dict[Point, float]:
        """The mean losses of the grid around a rate."""
        axis, costs = AXES["lr"], dict[tuple[Point, int], float]()
        start = (axis.point(middle) // 2 * 2,)
        stage = Stage(self.updates, 2, (start,), SEEDS, (axis.bounds,))
        while todo := next_trainings(stage, costs):
            costs |= {(point, seed): self.cost(axis.override(point[0]), seed) for point, seed in todo}
        (best,) = table_of(costs).best
        fine = [(place,) for place in range(best - 3, best + 4)]
        costs |= {(point, seed): self.cost(axis.override(point[0]), seed) for point in fine for seed in SEEDS}
        return {point: self._mean(axis.override(point[0])) for point in fine}

    def tuned(self, options: list[str]) -> dict[str, Any]:
        """What the command finds."""
        folder = self.root / "tune"
        command.main([*self.overrides, "--out", str(folder), *options])
        found: dict[str, Any] = json.loads((folder / command.JSON).read_text(encoding="utf-8"))
        return found

    def _mean(self, rate: str) -> float:
        return sum(self.cost(rate, seed) for seed in SEEDS) / len(SEEDS)

    def regret(self, rate: str, grid: dict[Point, float]) -> float:
        """By how much the loss of a rate is above the least of the grid, as a share."""
        return self._mean(rate) / min(grid.values()) - 1.0


def measured(name: str, out: Path, options: list[str]) -> dict[str, Any]:
    """The row of a task."""
    task, begun = Task(TASKS[name], out / name), time.monotonic()
    found = task.tuned(options)
    grid = task.grid(found["values"][0])
    best = min(grid, key=grid.__getitem__)
    return {
        "task": name,
        "rate": found["values"][0],
        "interval": found["intervals"][0],
        "best": AXES["lr"].at(best[0]),
        "decades": math.log10(found["values"][0] / AXES["lr"].at(best[0])),
        "regret": task.regret(found["override"][0], grid),
        "runs": found["runs"],
        "share_of_grid": found["runs"] / GRID_RUNS,
        "grid": {AXES["lr"].at(point[0]): cost for point, cost in grid.items()},
        "seconds": time.monotonic() - begun,
    }


def main() -> None:
    """Measure the tasks, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, with commas")
    parser.add_argument("--out", type=Path, default=Path("outputs/tune_regret"))
    parser.add_argument("--budget", default="10%")
    given = parser.parse_args()
    rows = []
    for name in given.tasks.split(","):
        if name.startswith(("text", "photos")) and "CADENCE_DATA" not in os.environ:
            print(f"{name}: left out, since CADENCE_DATA names no folder with its data")
            continue
        rows.append(measured(name, given.out, ["--budget", given.budget]))
        row = rows[-1]
        print(
            f"{name}: {row['rate']:.3g}, best {row['best']:.3g}, regret {100 * row['regret']:.1f} %, "
            f"{row['runs']:.2f} runs = {100 * row['share_of_grid']:.0f} % of the grid",
            file=sys.stderr,
            flush=True,
        )
        (given.out / "regret.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    regrets = sorted(row["regret"] for row in rows)
    if regrets:
        print(f"median {100 * median(regrets):.1f} %, worst {100 * regrets[-1]:.1f} %, of {len(regrets)} tasks")


if __name__ == "__main__":
    sys.exit(run_cli(main))
