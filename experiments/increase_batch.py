"""Increase the batch in place of the decay of the rate: the same loss at each sample, in half the updates.

Digits with 10 % wrong labels, a perceptron 64-32-10, SGD with momentum, batches of 8; at 12, 20 and 26 of 30 epochs the
rate is divided by 4, or the batch multiplied by 4. Example:

    python experiments/increase_batch.py --seeds 2 --out outputs/experiments
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.arms import Arm, Trial, trained  # noqa: E402
from experiments.command import Experiment, Result, Table, command  # noqa: E402
from experiments.verdict import Verdict, at_most, mean, spread  # noqa: E402
from trainer.cli.run_cli import guarded  # noqa: E402

if TYPE_CHECKING:
    from trainer.run import Assembly

# Frozen before the first full run.
APART = 0.05
"""The training loss with growing batches is within this share of that with the decay."""
ERROR = 1.0
"""… and the test error within so many percentage points."""
FEWER = 0.55
"""Where the batch alone grows, it takes at most this share of the updates."""
CONTROL = 0.08
"""The training loss of a control is farther from that with the decay than this share."""
CURVE = 0.02
"""A note: the loss curves lie within this share of each other where the batch grows, and at the end."""

SOURCE = "Smith et al. 2017, arXiv:1711.00489"
EPOCH = 1432
"""Samples of an epoch, in whole batches of 8."""
PLACES = (12, 20, 26, 30)
"""Epochs at which the batch grows, and the last."""
STEADY = ("batch_schedule=none", "~batch_schedule.max_batch_size")
ARMS = {
    "decay": ("the rate / 4, three times", STEADY),
    "hybrid": ("the batch × 4 once, then the rate / 4", ("batch_schedule.max_batch_size=32",)),
    "batch": ("the batch × 4, three times", ("batch_schedule.max_batch_size=512",)),
    "square root": ("the batch × 16, then × 4: the rule of Adam", ("batch_schedule.exponent=0.5",)),
    "constant": ("neither", (*STEADY, "schedule=constant", "~schedule.milestones", "~schedule.gamma")),
}
"""What is done at 12, 20 and 26 epochs, and how it is asked for."""


def arms() -> list[Arm]:
    """All of them, with the loss measured once in an epoch."""
    return [
        Arm(name, ("experiment=increase_batch", *chosen), prepare=by_epoch, look=watched)
        for name, (_, chosen) in ARMS.items()
    ]


def by_epoch(assembly: "Assembly") -> None:
    """Measure the loss, and note batch and rate, at the first update that completes another epoch of samples."""
    from experiments.epochs import Epochs

    assembly.module.observers = assembly.module.observers.with_probe(Epochs(assembly, EPOCH).attach)


def watched(assembly: "Assembly") -> Mapping[str, Any]:
    """What the observer has seen: for each epoch samples, loss, batch and rate."""
    observer: Any = assembly.module.updater.observer
    return {"epochs": observer.rows}


def run(seeds: Sequence[int], processes: int) -> Result:
    """Train every arm, and compare the losses at the end."""
    trials = trained(arms(), seeds, processes)
    rows = [
        [
            name,
            ARMS[name][0],
            f"{mean([one.updates for one in own]):.0f}",
            spread([one.train_loss for one in own], 4),
            spread([100 * one.test_error for one in own], 2),
        ]
        for name, own in trials.items()
    ]
    title = "At the end of 30 epochs (mean ± standard deviation)"
    table = Table(title, ["arm", "at 12, 20 and 26 epochs", "updates", "training loss", "test error, %"], rows)
    return Result(verdicts(trials), [table], partial(draw, trials), NOTES, len(trials) * len(seeds))


def verdicts(trials: Mapping[str, Sequence[Trial]]) -> list[Verdict]:
    """What growing batches keep, what they save, and two ways to change the rate and the batch that do not keep it."""
    losses = {name: mean([one.train_loss for one in own]) for name, own in trials.items()}
    errors = {name: 100 * mean([one.test_error for one in own]) for name, own in trials.items()}
    updates = {name: mean([one.updates for one in own]) for name, own in trials.items()}
    told = []
    for name in ("batch", "hybrid"):
        apart, error = abs(losses[name] / losses["decay"] - 1), abs(errors[name] - errors["decay"])
        told += [
            at_most(f"{name}: loss against that with the decay, relative", apart, APART, SOURCE),
            at_most(f"{name}: test error against that with the decay, points", error, ERROR, SOURCE),
        ]
    told.append(at_most("batch: updates / updates with the decay", updates["batch"] / updates["decay"], FEWER, SOURCE))
    for name, why in (("square root", "control: the rule of another optimizer"), ("constant", "control: no decay")):
        apart = abs(losses[name] / losses["decay"] - 1)
        told.append(at_most(f"{name}: loss against that with the decay, relative", apart, CONTROL, why, "control"))
    own, base = (curve(trials[name]) for name in ("batch", "decay"))
    far = max(abs(own[place] / base[place] - 1) for place in PLACES if place in own and place in base)
    return [*told, at_most("batch: curves apart at 12, 20, 26 and 30 epochs", far, CURVE, SOURCE, "note")]


def curve(trials: Sequence[Trial]) -> dict[int, float]:
    """The mean loss over the seeds at each epoch where it was measured."""
    rows = [{samples // EPOCH: loss for samples, loss, *_ in one.seen["epochs"]} for one in trials]
    return {epoch: mean([own[epoch] for own in rows]) for epoch in rows[0] if all(epoch in own for own in rows)}


COLORS = {"decay": "black", "hybrid": "#3a8f5c", "batch": "#2a6f97", "square root": "#9b3d6e", "constant": "#e07a1f"}


def draw(trials: Mapping[str, Sequence[Trial]], figure: Any) -> None:
    """The loss by epoch and by update, and the batch by epoch."""
    from matplotlib.ticker import FixedLocator

    epochs, updates, batches = figure.subplots(1, 3, width_ratios=(1.3, 1.3, 1))
    for name, own in trials.items():
        rows, losses = own[0].seen["epochs"], curve(own)
        style: dict[str, Any] = {"color": COLORS[name], "linewidth": 3.5 if name == "decay" else 1.6}
        style |= {"alpha": 0.35 if name == "decay" else 1.0, "label": name}
        epochs.plot(list(losses), list(losses.values()), **style)
        counts = {row[0] // EPOCH: row[2] for row in rows}
        updates.plot([counts[epoch] for epoch in losses], list(losses.values()), **style)
        batches.step([0, *(row[0] / EPOCH for row in rows)], [rows[0][3], *(row[3] for row in rows)], **style)
    for panel, title, label in (
        (epochs, "the same at each sample …", "epoch"),
        (updates, "… in half the updates", "update"),
        (batches, "the batch", "epoch"),
    ):
        panel.set(title=title, xlabel=label, yscale="log", xlim=(0, None))
    for panel in (epochs, updates):
        panel.yaxis.set_major_locator(FixedLocator([0.15, 0.2, 0.3, 0.5, 0.8]))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
    epochs.set_ylabel("training loss")
    epochs.legend(frameon=False, fontsize=9)
    batches.set_ylabel("samples in an update")
    batches.set_yticks([8, 32, 128, 512], ["8", "32", "128", "512"])
    batches.minorticks_off()


NOTES = (
    "The batch grows by accumulation of micro-batches of 8; every arm sees the same samples in the same order.",
    "What counts is the rate over the batch: without the decay the loss stays high, with Adam's rule it falls less.",
)

EXPERIMENT = Experiment(
    name="increase_batch",
    title="Increase the batch in place of the decay",
    about="Where a schedule divides the rate, multiplying the batch does the same for the loss, in fewer updates.",
    setting="Digits with 10 % wrong labels, a perceptron 64-32-10 from He's initialisation, SGD with momentum 0.9 "
    "at 0.02 for batches of 8, 30 epochs.",
    seeds=12,
    run=run,
    size=(12.5, 4.2),
)


def main(arguments: list[str] | None = None) -> None:
    """Run it from the command line."""
    command(EXPERIMENT, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(guarded(main))
