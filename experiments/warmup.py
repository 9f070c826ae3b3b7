"""When a warm-up matters: a net of high initial curvature stands larger rates with it, a tame one does not need it.

Digits, a deep plain perceptron 64-48-48-48-48-10 from He's initialisation times 1 and times 2.5, SGD with momentum and
Adam, a grid of rates without a warm-up and with one of 64 updates. Example:

    python experiments/warmup.py --seeds 2 --out outputs/experiments
"""

import math
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.arms import Arm, Trial, trained  # noqa: E402
from experiments.command import COLORS, Experiment, Result, Table, command  # noqa: E402
from experiments.verdict import Verdict, at_least, between  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402

# Frozen before the first full run.
GAINED = 2.0
"""At gain 2.5: the largest rate that trains, with a warm-up over without; and the best loss, without over with."""
SAME = (0.7, 1.5)
"""At gain 1: the largest rate that trains, with over without."""
TRAINED = 0.1
"""A rate trains where the median over the seeds of the training loss at the end is below this."""

SOURCE = "Kalra & Barkeshli 2024, arXiv:2406.09405"
LENGTHS = (0, 64)
OPTIMIZERS = {"momentum": "SGD, momentum 0.9", "adam": "Adam"}
GRIDS = {
    ("momentum", 1.0): range(-7, 0),
    ("momentum", 2.5): range(-17, -6),
    ("adam", 1.0): range(-12, -3),
    ("adam", 2.5): range(-13, -2),
}
"""The rates: 2^(k/2) for each k, by optimizer and gain."""
UPDATES = {1.0: 400, 2.5: 200}

Key = tuple[str, float, int]
"""Optimizer, gain, updates of warm-up."""


def arms() -> list[Arm]:
    """Every rate of every grid, without and with a warm-up."""
    return [
        _arm(optimizer, gain, updates, k)
        for (optimizer, gain), grid in GRIDS.items()
        for updates in LENGTHS
        for k in grid
    ]


def _arm(optimizer: str, gain: float, updates: int, k: int) -> Arm:
    chosen = (f"optimizer={optimizer}", f"optimizer.lr={rate(k)}", f"model.gain={gain}")
    warmup = [f"warmup.duration={updates}"] if updates else ["warmup=none", "~warmup.duration"]
    length = f"trainer.duration={UPDATES[gain]}"
    return Arm(_name((optimizer, gain, updates), k), ("experiment=warmup", *chosen, length, *warmup))


def _name(key: Key, k: int) -> str:
    return f"{key[0]} gain {key[1]:g} W {key[2]} lr {rate(k):g}"


def rate(k: int) -> float:
    """The learning rate of a point of the grid, to three digits."""
    return float(f"{2 ** (k / 2):.3g}")


def run(seeds: Sequence[int], processes: int) -> Result:
    """Train, and find the largest rate that trains and the best loss of each grid."""
    trials = trained(arms(), seeds, processes)
    found = {
        (*key, updates): {rate(k): _median(trials[_name((*key, updates), k)]) for k in grid}
        for key, grid in GRIDS.items()
        for updates in LENGTHS
    }
    rows = []
    for (optimizer, gain), grid in GRIDS.items():
        for updates in LENGTHS:
            own = found[optimizer, gain, updates]
            best = min(own, key=lambda lr: own[lr])
            reach = f"{rate(grid[0]):g} to {rate(grid[-1]):g}"
            edge = f"{largest(own):g}{' (the last tried)' * (largest(own) == max(own))}" if largest(own) else "none"
            rows.append(
                [f"{gain:g}", OPTIMIZERS[optimizer], str(updates), reach, edge, f"{own[best]:.4f}", f"{best:g}"]
            )
    head = ["gain", "optimizer", "W", "rates tried", "largest that trains", "best loss", "at rate"]
    table = Table(f"Rates in steps of √2; median of the training loss over {len(seeds)} seeds", head, rows)
    notes = [
        "A warm-up is no law: the rows of gain 1 are those of a net that starts tame. It is the high curvature at the "
        "start that it helps against."
    ]
    return Result(verdicts(found), [table], partial(draw, found), notes, len(trials) * len(seeds))


def _median(trials: Sequence[Trial]) -> float:
    return median(trial.train_loss for trial in trials)


def largest(losses: Mapping[float, float]) -> float:
    """The largest rate that trains, 0 if none does."""
    return max((lr for lr, loss in losses.items() if loss < TRAINED), default=0.0)


def verdicts(found: Mapping[Key, Mapping[float, float]]) -> list[Verdict]:
    """High curvature gains, low curvature does not; the demand of the first must fail for the second."""
    told = []
    for optimizer, title in OPTIMIZERS.items():
        ratios = {}
        for gain in UPDATES:
            without, by = (found[optimizer, gain, updates] for updates in LENGTHS)
            ratios[gain] = largest(by) / largest(without) if largest(without) else math.nan
        lowest = [min(found[optimizer, 2.5, updates].values()) for updates in LENGTHS]
        control = "control: a tame net"
        told += [
            at_least(f"{title}, gain 2.5: largest rate, with / without", ratios[2.5], GAINED, SOURCE),
            at_least(f"{title}, gain 2.5: best loss, without / with", lowest[0] / lowest[1], GAINED, SOURCE),
            between(f"{title}, gain 1: largest rate, with / without", ratios[1.0], SAME, SOURCE),
            at_least(f"{title}, gain 1: largest rate, with / without", ratios[1.0], GAINED, control, "control"),
        ]
    return told


def draw(found: Mapping[Key, Mapping[float, float]], figure: Any) -> None:
    """The loss over the rate, without and with a warm-up, for each optimizer and gain."""
    panels = figure.subplots(1, len(GRIDS), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (optimizer, gain) in zip(panels, GRIDS):
        for updates, color in zip(LENGTHS, (COLORS[3], COLORS[0])):
            losses = found[optimizer, gain, updates]
            finite = {lr: loss for lr, loss in losses.items() if math.isfinite(loss)}
            label = f"warm-up of {updates} updates" if updates else "no warm-up"
            panel.plot(list(finite), list(finite.values()), "o-", color=color, markersize=3.5, label=label)
        panel.axhline(TRAINED, color="#8a8a8a", linewidth=1, linestyle=":")
        panel.set(xscale="log", yscale="log", xlabel="learning rate", title=f"{OPTIMIZERS[optimizer]}\ngain {gain:g}")
        panel.xaxis.set_major_formatter("{x:g}")
    panels[0].set_ylabel("training loss at the end")
    panels[0].legend(frameon=False, fontsize=9)


EXPERIMENT = Experiment(
    name="warmup",
    title="When a warm-up matters",
    about="A warm-up lets a net of high initial curvature stand a larger rate and reach a lower loss; it changes "
    "nothing for a tame one.",
    setting="Digits, a plain ReLU perceptron 64-48-48-48-48-10 from He's initialisation times a gain, batches of 128, "
    "a rate that falls in a line to 0 after the warm-up of W updates, 200 updates in all (400 at gain 1).",
    seeds=6,
    run=run,
    size=(12.0, 3.8),
)


def main(arguments: list[str] | None = None) -> None:
    """Run it from the command line."""
    command(EXPERIMENT, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(run_cli(main))
