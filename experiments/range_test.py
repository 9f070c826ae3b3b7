"""Does the range test find the rate? Thirteen tasks on digits, compared with the final losses at all rates.

    python experiments/range_test.py --out outputs/range_accuracy        # minutes on two cores
    python experiments/range_test.py --tasks 2

The truth of a task: 20 epochs, linearly to zero, at 21 rates from 1e-4 to 10 with 3 seeds; the best rate for the
training loss and for held-out samples. Against it: 9 sweeps of 100 updates from 1e-7 to 10, each read by all rules.
The thresholds below were fixed before the first full run. This is not a sweep of train.py: the 63 trainings of a task
are one batched net, which takes a thirtieth of the time.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from experiments.claims import judged  # noqa: E402
from experiments.range_tasks import TASKS, Data, Task, digits, train  # noqa: E402
from experiments.record import Table, check, table_of  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.lr.range_rules import suggestions  # noqa: E402
from trainer.lr.range_test import Stop, Sweep, rates, smoothed  # noqa: E402
from trainer.tools.report.claims import Claim, Claims, write_claims  # noqa: E402

EDGE_ERROR = 0.4
"""The median of |log10(edge/4 / best rate for training)| is at most this."""
REGRET_MEDIAN, REGRET_P90 = 0.05, 0.20
"""Held-out loss of the best of three runs in the bracket, above that at the best of all rates, as a share."""
CONTROL = 2.0
"""The median error of the linear-axis gradient rule, in decades, is at least this."""

EPOCHS, SEEDS, SWEEPS, UPDATES = 20, 3, 9, 100
GRID = [10 ** (-4 + k / 4) for k in range(21)]
STEPS = (0.316, 1.0, 3.16)
NOISE = 0.02
WORST = 100.0


def curves(task: Task, data: Data, first: int) -> dict[str, list[float]]:
    """The final loss at each rate of the grid, the median of the seeds; on training and on held-out samples."""
    total = EPOCHS * (len(data.inputs) // task.batch)
    peaks = torch.tensor(GRID).repeat_interleave(SEEDS)
    decay = 1.0 - torch.arange(total) / total
    nets, _ = train(task, data, list(range(first, first + SEEDS)) * len(GRID), decay.unsqueeze(1) * peaks)
    scored = {
        "train": nets.losses(data.inputs, data.targets, data.inputs),
        "held": nets.losses(data.held_inputs, data.held_targets, data.inputs),
    }
    return {
        name: [
            median(min(loss, WORST) if math.isfinite(loss) else WORST for loss in row)
            for row in losses.view(-1, SEEDS).tolist()
        ]
        for name, losses in scored.items()
    }


def sweeps(task: Task, data: Data, first: int) -> list[Sweep]:
    """The sweeps of a task, each with its own seed, ended as the range test ends them."""
    values = rates(1e-7, 10.0, UPDATES)
    seeds = list(range(first + 1000, first + 1000 + SWEEPS))
    _, losses = train(task, data, seeds, torch.tensor(values).unsqueeze(1).expand(-1, SWEEPS))
    made = []
    for seed, column in zip(seeds, losses.T.tolist()):
        stop = Stop()
        breaks = [i for i, loss in enumerate(column) if stop(loss)][:1]
        seen = breaks[0] + 1 if breaks else UPDATES
        broke = values[breaks[0]] if breaks else None
        made.append(Sweep(values[:seen], column[:seen], broke, seed, UPDATES))
    return made


def linear_axis(sweep: Sweep) -> float:
    """The suggestion of Lightning's own code: where the loss falls steepest against the rate, not its logarithm."""
    from pytorch_lightning.tuner.lr_finder import _LRFinder

    finder = _LRFinder("exponential", 1e-7, 10.0, UPDATES)
    finder.results = {"lr": sweep.rates, "loss": smoothed(sweep.losses)}
    found = finder.suggestion()
    assert found is not None
    return found


def regret(curve: Sequence[float], value: float, draw: random.Random) -> float:
    """How far the best of three rates around `value` is above the lowest loss, chosen by losses with 2 % of noise."""
    truth = [at(curve, value * step) for step in STEPS]
    seen = [loss * math.exp(draw.gauss(0.0, NOISE)) for loss in truth]
    return truth[seen.index(min(seen))] / min(curve) - 1.0


def at(curve: Sequence[float], rate: float) -> float:
    """The loss at a rate between those of the grid: linear in the logarithms, and as at the end beyond it."""
    place = min(max((math.log10(rate) + 4.0) * 4.0, 0.0), len(GRID) - 1.0)
    i = min(int(place), len(GRID) - 2)
    part = place - i
    return math.exp((1.0 - part) * math.log(curve[i]) + part * math.log(curve[i + 1]))


def tried(task: Task, first: int) -> dict[str, Any]:
    """The losses at all rates of a task, and the suggestion of each rule for each sweep."""
    data = digits(task.noise)
    truth = curves(task, data, first)
    best = {name: GRID[curve.index(min(curve))] for name, curve in truth.items()}
    draw = random.Random(task.name)
    found: dict[str, list[float]] = {}
    regrets: dict[str, list[float]] = {"edge/8 alone": [], "three runs": []}
    refused = []
    for sweep in sweeps(task, data, first):
        suggested = suggestions([sweep])
        found.setdefault("linear axis (Lightning)", []).append(linear_axis(sweep))
        if (value := suggested["edge/8"].value) is None:
            refused.append(suggested["edge/8"].refused)
            continue
        for name, one in suggested.items():
            assert one.value is not None
            found.setdefault(name, []).append(one.value)
        regrets["edge/8 alone"].append(at(truth["held"], value) / min(truth["held"]) - 1.0)
        regrets["three runs"] += [regret(truth["held"], value, draw) for _ in range(10)]
    return {"task": task.name, "best": best, "truth": truth, "found": found, "regrets": regrets, "refused": refused}


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def summary(results: Sequence[dict[str, Any]]) -> tuple[list[Claim], list[Table]]:
    """The claims, and the tables of errors in decades and of regrets, each with median and 90th percentile."""
    errors: dict[str, dict[str, list[float]]] = {}
    for one in results:
        for name, values in one["found"].items():
            for kind, best in one["best"].items():
                row = errors.setdefault(name, {}).setdefault(kind, [])
                row += [abs(math.log10(value / best)) for value in values]
    regrets = {
        name: [value for one in results for value in one["regrets"][name]] for name in ("edge/8 alone", "three runs")
    }
    three, control = regrets["three runs"], errors["linear axis (Lightning)"]["train"]
    claims = [
        judged("edge/4: median error, decades", median(errors["edge/4"]["train"]), "at_most", EDGE_ERROR),
        judged("three runs: median regret", median(three), "at_most", REGRET_MEDIAN),
        judged("three runs: 90th percentile of the regret", quantile(three, 0.9), "at_most", REGRET_P90),
        judged("the linear axis (Lightning): median error, decades", median(control), "at_least", CONTROL),
    ]
    head = ["rule", "to train: median", "90 %", "to held-out: median", "90 %"]
    rows = [
        [name, *(f"{cell:.2f}" for kind in ("train", "held") for cell in middle_and_high(kinds[kind]))]
        for name, kinds in errors.items()
    ]
    lost = [[name, *(f"{cell:.1%}" for cell in middle_and_high(row))] for name, row in regrets.items()]
    return claims, [
        Table("|log10(rate / best rate)|", head, rows),
        Table("Regret of the held-out loss", ["way", "median", "90 %"], lost),
    ]


def middle_and_high(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 90th percentile."""
    return median(values), quantile(values, 0.9)


def main(arguments: list[str] | None = None) -> None:
    """Run the tasks, print the tables. Raises `NotReproduced`, exit code 1, where a threshold is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=len(TASKS), metavar="N", help="only the first N of the 13 tasks")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="another draw of the experiment (0)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write all numbers to FOLDER/claims.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = []
    for task in TASKS[: options.tasks]:
        started = time.time()
        results.append(one := tried(task, options.first_seed))
        edge4 = median(one["found"]["edge/4"]) if "edge/4" in one["found"] else math.nan
        print(
            f"{task.name:<28} best train {one['best']['train']:.3g} held {one['best']['held']:.3g}  edge/4 {edge4:.3g}"
            f"  refused {len(one['refused'])}  {time.time() - started:.0f} s",
            flush=True,
        )
    claims, tables = summary(results)
    for table in (*tables, table_of(claims)):
        print("\n".join(["", table.title, "", *table.markdown()]))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write_claims(
            options.out, Claims("Does the range test find the rate?", "", tuple(claims), more={"tasks": results})
        )
    check("range_test", claims)


if __name__ == "__main__":
    sys.exit(run_cli(main))
