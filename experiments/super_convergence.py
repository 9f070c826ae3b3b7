"""One cycle with a large peak is worth three times the training with a rate in steps, on CIFAR-10.

ResNet-9, batches of 512. Each schedule is tried at a grid of peaks and judged at its own best, chosen by images held
out. It wants a GPU. CADENCE_DATA may name a folder with cifar10/train.parquet and cifar10/test.parquet. Example:

    python experiments/super_convergence.py --seeds 1 --out outputs/experiments
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from experiments.arms import Arm, Trial, trained  # noqa: E402
from experiments.command import COLORS, Experiment, Result, Table, command  # noqa: E402
from experiments.verdict import Verdict, at_least, at_most, mean, spread  # noqa: E402
from trainer.cli.run_cli import run_cli  # noqa: E402

# Frozen before the first run.
BETTER = 0.5
"""Points of accuracy of one cycle above steps, with the same updates."""
BEHIND = 0.7
"""Points that one cycle may lie behind steps with three times the updates."""
WORSE = 0.5
"""Points that ten times the weight decay costs one cycle."""

SOURCE = "Smith & Topin 2017, arXiv:1708.07120"
UPDATES, LONG = 1312, 3 * 1312
"""15 and 45 epochs."""
CYCLE, STEPS = ("schedule=one_cycle",), ("schedule=multi_step",)
KINDS = {"one cycle": (*CYCLE, UPDATES), "steps": (*STEPS, UPDATES), "steps, three times as long": (*STEPS, LONG)}
PEAKS = {"one cycle": (0.4, 0.8, 1.6, 3.2), "steps": (0.05, 0.1, 0.2, 0.4), "steps, three times as long": (0.1, 0.2)}
FEW = 10_000
"""Training images of the small set: the advantage should be larger there."""
FEWER = (f"data.train_limit={FEW}", f"data.samples={FEW}")
DECAY = "optimizer.weight_decay=1e-3"

Trials = Mapping[str, Sequence[Trial]]


def arm(kind: str, peak: float, *more: str, label: str = "") -> Arm:
    """A schedule with a peak; `label` says what else is different."""
    from experiments.photographs import held_out, setting  # late: this brings torch

    schedule, updates = KINDS[kind]
    length = (f"trainer.duration={updates}", f"optimizer.lr={peak}")
    return Arm(
        _name(kind, peak, label), ("experiment=super_convergence", schedule, *length, *setting(), *more), look=held_out
    )


def _name(kind: str, peak: float, label: str = "") -> str:
    return " ".join(filter(None, (kind, label, f"at {peak:g}")))


def run(seeds: Sequence[int], processes: int) -> Result:
    """Tune the peaks, then train on fewer images and with more decay at the best of them."""
    tuning = trained([arm(kind, peak) for kind, peaks in PEAKS.items() for peak in peaks], seeds, processes)
    best = {kind: chosen(tuning, kind) for kind in KINDS}
    extra = [arm("one cycle", best["one cycle"], DECAY, label="decay × 10")]
    extra += [arm(kind, best[kind], *FEWER, label="few images") for kind in ("one cycle", "steps")]
    trials = {**tuning, **trained(extra, seeds, processes)}
    return Result(verdicts(trials, best), tables(trials, best), partial(draw, trials), [], len(trials) * len(seeds))


def chosen(trials: Trials, kind: str) -> float:
    """The peak with the least mean error on the images held out."""
    return min(PEAKS[kind], key=lambda peak: mean([one.seen["val_error"] for one in trials[_name(kind, peak)]]))


def accuracies(trials: Sequence[Trial]) -> list[float]:
    """In percent, on the test set."""
    return [100 * (1 - one.test_error) for one in trials]


def verdicts(trials: Trials, best: Mapping[str, float]) -> list[Verdict]:
    """What the cycle gains with the same updates, what it loses against many more, and what decay does to it."""

    def accuracy(kind: str, label: str = "") -> float:
        return mean(accuracies(trials[_name(kind, best[kind], label)]))

    cycle, steps = accuracy("one cycle"), accuracy("steps")
    few = accuracy("one cycle", "few images") - accuracy("steps", "few images")
    decayed = cycle - accuracy("one cycle", "decay × 10")
    behind = accuracy("steps, three times as long") - cycle
    return [
        at_least("one cycle - steps, points", cycle - steps, BETTER, SOURCE),
        at_most("steps with three times the updates - one cycle, points", behind, BEHIND, SOURCE),
        at_least(f"advantage with {FEW:,} images - with all, points", few - (cycle - steps), 0, SOURCE),
        at_most("one cycle - the same with ten times the decay, points", decayed, WORSE, SOURCE, "control"),
    ]


def tables(trials: Trials, best: Mapping[str, float]) -> list[Table]:
    """Every arm; the peaks that were chosen are marked."""
    marked = {_name(kind, peak) for kind, peak in best.items()}
    rows = [
        [
            f"**{name}**" if name in marked else name,
            str(own[0].updates),
            spread([100 * (1 - one.seen["val_error"]) for one in own], 2),
            spread(accuracies(own), 2),
            f"{mean([one.seconds for one in own]):.0f}",
        ]
        for name, own in trials.items()
    ]
    head = ["arm", "updates", "held out, %", "test, %", "seconds"]
    return [Table("Accuracy (mean ± standard deviation); the chosen peaks are bold", head, rows)]


def draw(trials: Trials, figure: Any) -> None:
    """Test accuracy by peak, for each schedule."""
    panel = figure.subplots()
    for color, (kind, peaks) in zip(COLORS, PEAKS.items()):
        found = [accuracies(trials[_name(kind, peak)]) for peak in peaks]
        for peak, own in zip(peaks, found):
            panel.plot([peak] * len(own), own, ".", color=color, alpha=0.4)
        panel.plot(peaks, [mean(own) for own in found], "o-", color=color, label=f"{kind}, {KINDS[kind][1]:,} updates")
    panel.set(xscale="log", xlabel="peak of the learning rate", ylabel="test accuracy, %")
    panel.set_xticks(sorted({peak for peaks in PEAKS.values() for peak in peaks}))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    panel.legend(frameon=False)


EXPERIMENT = Experiment(
    name="super_convergence",
    title="Super-convergence: one cycle with a large peak",
    about="One cycle with a large peak and little weight decay reaches in 15 epochs what a rate in steps reaches in "
    "45.",
    setting="CIFAR-10, 45,000 images train and 5,000 choose the peaks; ResNet-9, SGD with Nesterov momentum 0.9, "
    "weight decay 1e-4, batches of 512, crops, flips. The steps go down by ten after half and three quarters.",
    seeds=2,
    run=run,
)


def main(arguments: list[str] | None = None) -> None:
    """Run it from the command line."""
    command(EXPERIMENT, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(run_cli(main))
