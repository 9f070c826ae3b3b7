"""Batches of 256 to 8,192 on CIFAR-10: the linear rule needs a gradual warm-up, and AdaScale needs none.

ResNet-9. Large batches are made of micro-batches of 256, so that BatchNorm sees what one of many workers would see. It
wants a GPU. CADENCE_DATA may name a folder with cifar10/train.parquet and cifar10/test.parquet. Example:

    python experiments/large_batch.py --seeds 1 --out outputs/experiments
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

# Frozen before the first run. In points of test error, at the largest batch.
NEGLECT = 0.5
"""No rule above the linear rule with a gradual warm-up."""
SIMILAR = 0.3
"""AdaScale above the linear rule with a gradual warm-up."""
KEPT = 1.0
"""AdaScale above the base batch."""

GOYAL, ADASCALE = "Goyal et al. 2017, arXiv:1706.02677", "Johnson et al. 2020, AdaScale SGD"
BASE, MULTIPLES, WARMUP = 256, (4, 16, 32), "5.556%"
"""5 of 90 epochs of warm-up, as in the paper."""
SAMPLES = 671_744
"""15 epochs, in whole batches of 8,192."""
ARMS = ("none", "sqrt", "linear", "gradual", "constant", "adascale")

Trials = Mapping[str, Sequence[Trial]]


def arms() -> list[Arm]:
    """The base batch, and each larger one with each rule and warm-up."""
    return [arm("linear", 1), *(arm(name, s) for s in MULTIPLES for name in ARMS)]


def arm(name: str, s: int) -> Arm:
    """`s` times the base batch."""
    from experiments.photographs import setting  # late: this brings torch

    rule = name if name in ("none", "sqrt", "adascale") else "linear"
    chosen = ["scaling=none", "~scaling.base_batch_size"] if rule == "none" else [f"scaling={rule}"]
    length = f"{SAMPLES // BASE}" if rule == "adascale" else f"{SAMPLES} samples"
    if name == "gradual":
        chosen += ["warmup=linear", f"warmup.start={1 / s}", f"warmup.duration={WARMUP}"]
    if name == "constant":
        chosen += ["warmup=constant", f"warmup.factor={1 / s}", f"warmup.duration={WARMUP}"]
    fixed = ("experiment=large_batch", f"trainer.accumulate={s}", f"trainer.duration={length}")
    return Arm(f"{name} {s}", (*fixed, *setting(), *chosen))


def run(seeds: Sequence[int], processes: int) -> Result:
    """Train, and compare the test errors."""
    trials = trained(arms(), seeds, processes)
    return Result(verdicts(trials), tables(trials), partial(draw, trials), [], len(trials) * len(seeds))


def errors(trials: Sequence[Trial]) -> list[float]:
    """On the test set, in percent."""
    return [100 * one.test_error for one in trials]


def verdicts(trials: Trials) -> list[Verdict]:
    """The order of the rules at the largest batch, and what each loses against the base batch."""
    most = MULTIPLES[-1]
    base = mean(errors(trials["linear 1"]))
    at = {name: mean(errors(trials[f"{name} {most}"])) for name in ARMS}
    batch = f"batch {most * BASE:,}"
    return [
        at_least(f"{batch}: none - gradual warm-up, points", at["none"] - at["gradual"], NEGLECT, GOYAL),
        at_least(f"{batch}: no warm-up - gradual warm-up, points", at["linear"] - at["gradual"], 0, GOYAL),
        at_most(f"{batch}: AdaScale - gradual warm-up, points", at["adascale"] - at["gradual"], SIMILAR, ADASCALE),
        at_most(f"{batch}: AdaScale - batch {BASE}, points", at["adascale"] - base, KEPT, ADASCALE),
        at_most(f"{batch}: none - batch {BASE}, points", at["none"] - base, KEPT, "control: no rule", "control"),
        at_least(f"{batch}: constant - gradual warm-up, points", at["constant"] - at["gradual"], 0, GOYAL, "note"),
    ]


def tables(trials: Trials) -> list[Table]:
    """Test errors by batch and rule, and the updates of AdaScale."""
    head = ["batch", "none", "sqrt", "linear", "linear, gradual warm-up", "linear, constant warm-up", "AdaScale"]
    rows = [
        [f"{s * BASE:,}", *(spread(errors(own), 2) if (own := trials.get(f"{name} {s}")) else "" for name in ARMS)]
        for s in (1, *MULTIPLES)
    ]
    counts = [
        [
            f"{s * BASE:,}",
            str(trials[f"linear {s}"][0].updates),
            spread([t.updates for t in trials[f"adascale {s}"]], 0),
        ]
        for s in MULTIPLES
    ]
    return [
        Table("Test error, % (mean ± standard deviation)", head, rows),
        Table("Updates", ["batch", "every other rule", "AdaScale"], counts),
    ]


def draw(trials: Trials, figure: Any) -> None:
    """Test error by batch, a line for each rule."""
    panel = figure.subplots()
    base = errors(trials["linear 1"])
    for color, name in zip(COLORS, ARMS):
        found = {BASE: base} | {s * BASE: errors(trials[f"{name} {s}"]) for s in MULTIPLES}
        for batch, own in found.items():
            panel.plot([batch] * len(own), own, ".", color=color, alpha=0.4)
        label = f"linear, {name} warm-up" if name in ("gradual", "constant") else name
        panel.plot(list(found), [mean(own) for own in found.values()], "-", color=color, label=label)
    panel.set(xscale="log", xlabel="global batch", ylabel="test error, %")
    panel.set_xticks([s * BASE for s in (1, *MULTIPLES)])
    panel.xaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    panel.legend(frameon=False)


EXPERIMENT = Experiment(
    name="large_batch",
    title="Large batches on CIFAR-10",
    about="Up to 32 times the batch: without a rule the test error grows, the linear rule with a gradual warm-up keeps "
    "it, and AdaScale keeps it without a warm-up.",
    setting="CIFAR-10, 45,000 images, crops, flips; ResNet-9 with the last scale of each residual branch at 0, SGD "
    "with Nesterov momentum 0.9, rate 0.2 at batch 256, weight decay 5e-4, 671,744 samples (15 epochs), the rate over "
    "10 after 30, 60 and 80 of 90 parts, warm-ups of 5 of 90 parts from the base rate.",
    seeds=2,
    run=run,
)


def main(arguments: list[str] | None = None) -> None:
    """Run it from the command line."""
    command(EXPERIMENT, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(run_cli(main))
