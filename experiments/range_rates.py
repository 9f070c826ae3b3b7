"""How good is the range test? Its bracket and its rate against the true best rate of tasks.

    python experiments/range_rates.py --tasks fitted --out outputs/rates      # the tasks by which its rule was chosen
    python experiments/range_rates.py --tasks held-out --out outputs/rates    # those that no rule has seen

The tasks are those of experiments/rates/tasks.py; those on text need CADENCE_DATA. The truth of a task is a grid of
trainings at full length (experiments/rates/truth.py). A bracket is right where it holds the best rate of the grid. The
second count is of brackets that hold a level rate, whose loss is at most 2 % above the best: on a flat grid the best is
chance. Errors are in decades, to the best rate and to the nearest level one. The published rules read three sweeps over
all rates.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from experiments.rates.sweeps import WIDE, sweeps_of  # noqa: E402
from experiments.rates.truth import LEVEL, Truth  # noqa: E402
from experiments.tune_regret import names_of  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.lr.range_rules import OURS, suggestions  # noqa: E402

TRANSFORMERS = ("gpt", "encoder", "decoder")


def judged(name: str, out: Path) -> dict[str, Any]:
    """What each rule says of a task, and how far it is from the truth."""
    truth, ours = Truth(name, out), suggestions(sweeps_of(name, out))[OURS]
    best, level = truth.best, truth.level()
    others = [one for one in suggestions(sweeps_of(name, out, *WIDE)).values() if one.method != OURS]
    row: dict[str, Any] = {"task": name, "best": best, "level": (level[0], level[-1]), "refused": ours.refused}
    row["errors"] = {one.method: math.log10(one.value / best) for one in (ours, *others) if one.value is not None}
    if ours.value is None or ours.interval is None:
        return row
    low, high = ours.interval
    nearest = min(level, key=lambda rate: abs(math.log10(rate / ours.value)))  # type: ignore[operator]
    inside = math.log10(ours.value / nearest) if not level[0] <= ours.value <= level[-1] else 0.0
    return row | {
        "value": ours.value,
        "bracket": (low, high),
        "caution": ours.caution,
        "right": low <= best <= high,
        "level_right": low <= level[-1] and level[0] <= high,
        "level_error": inside,
    }


def format_row(row: dict[str, Any]) -> str:
    """A row in one line."""
    if row["refused"]:
        return f"{row['task']}: best {row['best']:.3g}; refused: {row['refused']}"
    low, high = row["bracket"]
    how = "right" if row["right"] else "holds a level rate" if row["level_right"] else "WRONG"
    return (
        f"{row['task']}: best {row['best']:.3g} ({row['level'][0]:.3g} … {row['level'][1]:.3g}); suggests "
        f"{row['value']:.3g} ({low:.3g} … {high:.3g}), {row['level_error']:+.2f} decades: {how}"
    )


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """The counts, and the median and 90th percentile of the error of each rule."""
    read = [row for row in rows if not row["refused"]]
    lines = [
        f"{len(rows)} tasks, {len(rows) - len(read)} refused; the bracket holds the best rate in "
        f"{sum(row['right'] for row in read)}, a rate within {100 * LEVEL:g} % of it in "
        f"{sum(row['level_right'] for row in read)}"
    ]
    transformers = [row for row in read if row["task"].startswith(TRANSFORMERS)]
    near = sum(abs(row["errors"]["fall"]) <= 0.5 for row in transformers)
    level = sum(abs(row["level_error"]) <= 0.5 for row in transformers)
    lines.append(f"transformers within half a decade: {near} of {len(transformers)} (of a level rate: {level})")
    for method in read[0]["errors"] if read else ():
        errors = sorted(abs(row["errors"][method]) for row in read if method in row["errors"])
        high = errors[math.ceil(0.9 * len(errors)) - 1]
        lines.append(f"{method}: error {median(errors):.2f} decades in the median, {high:.2f} at the 90th percentile")
    return lines


def main() -> None:
    """Judge the tasks, and print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks",
        default="fitted",
        help="fitted (with those held out before), held-out, all, or names, with commas (fitted)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/rates"))
    given = parser.parse_args()
    rows = []
    for name in names_of(given.tasks):
        rows.append(judged(name, given.out))
        print(format_row(rows[-1]), flush=True)
    (given.out / f"range-{given.tasks[:20]}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    sys.exit(run_cli(main))
