"""The page with the table of optimizers."""

import math
from textwrap import fill
from typing import Any

from benchmarks.optimizers.trial import Trial

TIERS = {
    "Textbook": (
        "gd sgd sgd_noise momentum nesterov adagrad adadelta rmsprop rmsprop_tf adam adamw nadam radam adamax adabound "
        "ranger"
    ),
    "Large batches": "lars lamb",
    "Modern": "lookahead adafactor lion muon soap adopt ademamix stable_adamw cautious_adamw corrected_adamw",
    "No learning rate to find, or no schedule": (
        "schedule_free_sgd schedule_free_adamw schedule_free_radam prodigy dadapt_adam dadapt_sgd dog dowg"
    ),
}
GUESS = math.log(10)
LEAST = -0.91 * math.log(0.91) - 0.09 * math.log(0.01)


def page(trials: list[Trial], facts: dict[str, Any]) -> str:
    """The whole page."""
    where, versions = facts["machine"], facts["machine"]["versions"]
    paragraphs = [
        "This page lists the optimizers with what each reaches on digits, its time and its memory. Choose one by "
        "`cadence train optimizer=NAME`. `conf/optimizer/NAME.yaml` gives its source, its usual rates and what it "
        "needs. To write one, see [own_optimizer.md](own_optimizer.md).",
        f"Measured by `{facts['command']}` on {where['processor']}, {where['threads']} thread of {where['cores']} "
        f"cores shared with other jobs, with Python {versions['python']}, torch {versions['torch']}, pytorch_optimizer "
        f"{versions['pytorch-optimizer']}.",
        f"**Loss and accuracy** are those of the validation data after {facts['updates']} updates on digits (an MLP "
        "with two hidden layers of 128, batches of 64, one seed). Each optimizer has its own default schedule and "
        "warm-up, and the best rate of a grid: its default rate times powers of √10, two each way, and up to three "
        f"more if the best was at an end. A constant guess has a loss of {GUESS:.2f}. The labels are smoothed by 0.1, "
        f"so that no loss is below {LEAST:.2f}. So short a run on so small a task does not rank optimizers; it shows "
        "that each trains.",
        "**Time** is that of a whole update, with forward and backward pass, divided by that of SGD: the median of "
        f"{facts['rounds']} rounds in turn, on a net so small that each call of the step counts "
        f"({1e6 * facts['base']:.0f} µs with SGD). "
        "**Bytes** are those of the optimizer's state per parameter of this net (a 32-bit number has 4).",
        "gd takes the whole training set in each update, twenty times the data of the others; its time is that of a "
        "step on one batch. sgd_noise has trainer.gradient_noise=0.01, which its time does not include. For muon the "
        "rate is that of the hidden matrices; AdamW trains the rest at 3e-3.",
    ]
    parts = ["# Optimizers", *(fill(text, 119, break_long_words=False, break_on_hyphens=False) for text in paragraphs)]
    left = {trial.name: trial for trial in trials}
    for title, names in {**TIERS, "More": ""}.items():
        shown = [left.pop(name) for name in names.split() if name in left] if names else list(left.values())
        if shown:
            parts += [f"## {title}", table(shown)]
    return "\n\n".join(parts) + "\n"


def table(trials: list[Trial]) -> str:
    """A row for each optimizer."""
    head = "| optimizer | class | best lr | tried | loss | accuracy | time × SGD | bytes |"
    rows = [head, "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |"]
    for trial in trials:
        tried, best = sorted(trial.losses), trial.best
        cells = (
            *(trial.name, f"`{trial.target}`", f"{best:g}", f"{tried[0]:g} to {tried[-1]:g}"),
            *(f"{trial.losses[best]:.3f}", f"{trial.accuracies[best]:.1%}"),
            *(f"{trial.seconds:.2f}", f"{trial.bytes:.1f}"),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
