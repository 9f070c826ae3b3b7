"""How good is `cadence tune`? Its rate against a grid of quarter-decades at full length, and beside other ways.

    python experiments/tune_regret.py --out outputs/rates   # tasks that no rule has seen: an hour
    python experiments/tune_regret.py --tasks mlp-adamw,gpt-32-adamw --no-peers

The tasks are those of experiments/rates/tasks.py; those on text need CADENCE_DATA. The regret of a rate is its mean
validation loss at full length with seeds 0 and 1, over the least of the grid with the same seeds, minus 1. Costs are in
whole runs, and as a share of a grid of quarter-decades over three decades with two seeds, 26 runs. Beside it: the
suggestion of Lightning's lr_find, the valley rule over three sweeps, and Optuna's TPE between 1e-5 and 1 with as many
whole runs as the tune has cost. What an earlier start has trained is taken from its folder.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments.rates import peers  # noqa: E402
from experiments.rates.tasks import CONF, FITTED, HELD_OUT, TASKS, USED  # noqa: E402
from experiments.rates.truth import GRID_RUNS, Truth  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.lr import ConfigError  # noqa: E402
from trainer.tools.run_folders import TUNE  # noqa: E402
from trainer.tools.tune import command  # noqa: E402

SETS = {"held-out": HELD_OUT, "fitted": FITTED | USED, "all": TASKS}
WAYS = ("tune", "lr_find", "valley", "TPE")


def measured(name: str, out: Path, budget: str, beside: bool) -> dict[str, Any]:
    """The row of a task."""
    truth, folder = Truth(name, out), out / name / "tune"
    words = [*TASKS[name], "--config-dir", str(CONF), "--budget", budget, "--out", str(folder)]
    command.main(words)
    found = json.loads((folder / TUNE).read_text(encoding="utf-8"))
    rates: dict[str, float | None] = {"tune": found["values"][0]}
    if beside:
        runs = max(1, round(found["runs"]))
        rates |= {"lr_find": peers.lr_find(name), "valley": peers.valley(name, out), "TPE": peers.tpe(truth, runs)}
    return {
        "task": name,
        "best": truth.best,
        "interval": found["intervals"][0],
        "more": found["override"][1:],
        "runs": found["runs"],
        "rates": rates,
        "regrets": {way: math.inf if rate is None else truth.regret(rate) for way, rate in rates.items()},
        "grid": truth.grid(),
    }


def format_row(row: dict[str, Any]) -> str:
    """A row in one line."""
    ways = [
        f"{way} none" if row["rates"][way] is None else f"{way} {row['rates'][way]:.3g} {100 * regret:+.1f} %"
        for way, regret in row["regrets"].items()
    ]
    return f"{row['task']}: best {row['best']:.3g}; {'; '.join(ways)}; {row['runs']:.1f} runs"


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """The quantiles of the regrets of each way, and the cost of the tune."""
    lines = []
    for way in WAYS:
        regrets = sorted(row["regrets"][way] for row in rows if way in row["regrets"])
        if regrets:
            high = regrets[math.ceil(0.9 * len(regrets)) - 1]
            numbers = (median(regrets), high, regrets[-1])
            lines.append(f"{way}: median, 90th percentile, worst: {', '.join(f'{100 * one:.1f} %' for one in numbers)}")
    shares = [100 * row["runs"] / GRID_RUNS for row in rows]
    return [*lines, f"cost of the tune: {min(shares):.0f} to {max(shares):.0f} % of the grid, {len(rows)} tasks"]


def main() -> None:
    """Measure the tasks, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="held-out", help=f"{', '.join(SETS)}, or names, with commas (held-out)")
    parser.add_argument("--out", type=Path, default=Path("outputs/rates"))
    parser.add_argument("--budget", default="10%")
    parser.add_argument("--no-peers", action="store_true", help="the tune alone")
    given = parser.parse_args()
    rows = []
    for name in names_of(given.tasks):
        rows.append(measured(name, given.out, given.budget, not given.no_peers))
        print(format_row(rows[-1]), file=sys.stderr, flush=True)
        (given.out / "regret.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("\n".join(summary(rows)))


def names_of(asked: str) -> list[str]:
    """The tasks that are asked for, without those on text where there is no text."""
    names = list(SETS.get(asked) or asked.split(","))
    if unknown := [name for name in names if name not in TASKS]:
        raise ConfigError(f"--tasks={asked}: {unknown[0]} is not one of {', '.join((*SETS, *TASKS))}.")
    text = [name for name in names if "data=text" in TASKS[name] and "CADENCE_DATA" not in os.environ]
    if text:
        print(f"left out, since CADENCE_DATA names no folder with the text: {', '.join(text)}", file=sys.stderr)
    return [name for name in names if name not in text]


if __name__ == "__main__":
    sys.exit(run_cli(main))
