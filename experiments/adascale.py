"""AdaScale: as the batch grows S-fold, the loss stays where the linear rule loses it, and a warm-up emerges by itself.

Digits with and without wrong labels, a perceptron 64-32-10, SGD with momentum, the rate tuned for batches of 8; S times
the batch under AdaScale and under the linear rule. Example:

    python experiments/adascale.py --seeds 2 --out outputs/experiments
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.arms import Trial, trained  # noqa: E402
from experiments.command import Experiment, Result, Table, command  # noqa: E402
from experiments.gains import BASE, MULTIPLES, TASKS, arms  # noqa: E402
from experiments.verdict import Verdict, at_least, at_most, between, mean, spread  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402

# Frozen before the first full run.
KEPT = 1.15
"""Under AdaScale the loss at S is at most this times that at S = 1, for every S."""
LOST = {32: 1.15, 64: 1.5}
"""Under the linear rule it is at least this times that at S = 1."""
EARLY = 0.35
"""The mean gain of the first five updates is at most this share of S, for S of 16 and more."""
SAME = 0.05
"""A gain held at S comes within this share of the linear rule's loss."""

SOURCE = "Johnson et al. 2020, AdaScale SGD, ICML"


def run(seeds: Sequence[int], processes: int) -> Result:
    """Train every arm, and judge."""
    trials = trained(arms(), seeds, processes)
    rows = [row for task in TASKS for row in _rows(trials, task)]
    head = ["task, S", "batch", "AdaScale: loss", "updates", "error %", "linear: loss", "updates", "error %"]
    table = Table("Training loss (mean ± standard deviation) and updates by the multiple S of the batch", head, rows)
    pace = Table("Mean gain of the first and of the last five updates", ["task, S", "first", "last"], _paces(trials))
    return Result(verdicts(trials), [table, pace], partial(draw, trials), NOTES, len(trials) * len(seeds))


def _rows(trials: Mapping[str, Sequence[Trial]], task: str) -> list[list[str]]:
    """A row for each S."""

    def cells(name: str) -> list[str]:
        own = trials[name]
        error, updates = 100 * mean([one.test_error for one in own]), mean([one.updates for one in own])
        return [spread([one.train_loss for one in own]), f"{updates:.0f}", f"{error:.2f}"]

    first = [f"{task}, 1", str(BASE), *cells(f"{task} 1"), "the same", "", ""]
    more = ([f"{task}, {s}", str(BASE * s), *cells(f"{task} adascale {s}"), *cells(f"{task} linear {s}")] for s in MULTIPLES)  # fmt: skip  # noqa: E501
    return [first, *more]


def _paces(trials: Mapping[str, Sequence[Trial]]) -> list[list[str]]:
    names = [(task, s, trials[f"{task} adascale {s}"]) for task in TASKS for s in MULTIPLES]
    return [[f"{task}, {s}", f"{early(own):.1f}", f"{late(own):.1f}"] for task, s, own in names]


def early(trials: Sequence[Trial]) -> float:
    """The mean gain of the first five updates."""
    return mean([mean(one.seen["gains"][:5]) for one in trials])


def late(trials: Sequence[Trial]) -> float:
    """The mean gain of the last five."""
    return mean([mean(one.seen["gains"][-5:]) for one in trials])


def loss(trials: Sequence[Trial]) -> float:
    """The mean loss over the seeds."""
    return mean([one.train_loss for one in trials])


def verdicts(trials: Mapping[str, Sequence[Trial]]) -> list[Verdict]:
    """What AdaScale keeps, what the linear rule loses, and what becomes of a gain that measures nothing."""
    told = []
    for task, (length, _) in TASKS.items():
        base, paced = loss(trials[f"{task} 1"]), {s: trials[f"{task} adascale {s}"] for s in MULTIPLES}
        kept = max(loss(own) for own in paced.values()) / base
        told.append(at_most(f"{task}: AdaScale, largest loss over all S / loss at 1", kept, KEPT, SOURCE))
        for s, least in LOST.items():
            lost = loss(trials[f"{task} linear {s}"]) / base
            told.append(at_least(f"{task}: linear, loss at {s} / loss at 1", lost, least, SOURCE))
        shares = [(gain, gain / s) for s, own in paced.items() for one in own for gain in one.seen["gains"]]
        counts = [(one.updates * s / length, one.updates / length) for s, own in paced.items() for one in own]
        begun = max(early(own) / s for s, own in paced.items() if s >= 16)
        told += [
            at_least(f"{task}: least gain of an update", min(gain for gain, _ in shares), 1, SOURCE),
            at_most(f"{task}: largest gain / S", max(share for _, share in shares), 1, SOURCE),
            at_least(f"{task}: updates · S / T, least over all runs", min(least for least, _ in counts), 1, SOURCE),
            at_most(f"{task}: updates / T, most over all runs", max(most for _, most in counts), 1, SOURCE),
            at_most(f"{task}: first five gains / S, most over S of 16 and more", begun, EARLY, SOURCE),
        ]
    return [*told, *controls(trials)]


def controls(trials: Mapping[str, Sequence[Trial]]) -> list[Verdict]:
    """A gain held at S is the linear rule and loses as it does; one held at 1 takes every update of the base batch."""
    base, held, linear = (loss(trials[name]) for name in ("noisy 1", "noisy held S 64", "noisy linear 64"))
    updates, length = mean([one.updates for one in trials["noisy held one 4"]]), TASKS["noisy"][0]
    return [
        at_most("noisy: gain held at S, loss at 64 / loss at 1", held / base, KEPT, "control: gain := S", "control"),
        at_most("noisy: gain held at S against linear", abs(held / linear - 1), SAME, "gain := S is the linear rule"),
        between("noisy: updates with the gain held at 1", updates, (length, length), "gain := 1 is no rule"),
    ]


RULES = {"adascale": "#2a6f97", "linear": "#e07a1f"}
SHADES = dict(zip(MULTIPLES, ("#9cc3dc", "#5f9dc4", "#2a6f97", "#123c56")))


def draw(trials: Mapping[str, Sequence[Trial]], figure: Any) -> None:
    """The loss by S under both rules, on each task, and the gains along the noisy runs."""
    from matplotlib.ticker import FixedLocator

    panels = figure.subplots(1, len(TASKS) + 1)
    for panel, task in zip(panels, TASKS):
        for rule, color in RULES.items():
            names = {1: f"{task} 1"} | {s: f"{task} {rule} {s}" for s in MULTIPLES}
            for s, name in names.items():
                panel.plot(
                    [s] * len(trials[name]), [one.train_loss for one in trials[name]], ".", color=color, alpha=0.4
                )
            means = [loss(trials[name]) for name in names.values()]
            panel.plot(list(names), means, "o-", color=color, label={"adascale": "AdaScale"}.get(rule, rule))
        panel.set(xscale="log", yscale="log", xlabel=f"S, batches of {BASE} in an update", title=f"{task} labels")
        panel.yaxis.set_major_locator(FixedLocator([0.005, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 1, 2, 4]))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_xticks([1, *MULTIPLES], [str(s) for s in (1, *MULTIPLES)], minor=False)
        panel.minorticks_off()
    panels[0].set_ylabel("training loss")
    panels[0].legend(frameon=False)
    for s, color in ((s, SHADES[s]) for s in MULTIPLES):
        gain = trials[f"noisy adascale {s}"][0].seen["gains"]
        panels[-1].plot([(i + 0.5) / len(gain) for i in range(len(gain))], gain, color=color, label=f"S = {s}")
    panels[-1].set(
        xlabel="share of the run's updates", ylabel="gain of an update", yscale="log", title="a warm-up emerges"
    )
    panels[-1].set_yticks([1, *MULTIPLES], [str(s) for s in (1, *MULTIPLES)], minor=False)
    panels[-1].minorticks_off()
    panels[-1].legend(frameon=False, fontsize=9)


NOTES = (
    "The runs under AdaScale end where the sum of their gains reaches the updates of the base batch.",
    "The error is over 360 test digits; with wrong labels a lower training loss is no lower error.",
)

EXPERIMENT = Experiment(
    name="adascale",
    title="AdaScale",
    about="As the batch grows S-fold, the linear rule loses the training loss and AdaScale keeps it, for some more "
    "updates; its gain is small at first, and no warm-up is asked for.",
    setting="Digits with 10 % wrong labels (20 epochs) and with none (6 epochs), a perceptron 64-32-10 from He's "
    "initialisation, SGD with momentum 0.9 at 0.05 for batches of 8, an exponential decay to 1 %.",
    seeds=4,
    run=run,
    size=(12.5, 4.2),
)


def main(arguments: list[str] | None = None) -> None:
    """Run it from the command line."""
    command(EXPERIMENT, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(run_cli(main))
