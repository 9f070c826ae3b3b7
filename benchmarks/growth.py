"""How costs grow with parameters, groups, updates of a plan, jobs of a sweep and samples: exponents, and a picture."""

import gc
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from hydra import compose
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import nn

from data.order import Layout, Order
from trainer.cli.compose import CONF
from trainer.cli.hydra_internals import composed_once, initialized
from trainer.lr import Horizon, LRPolicy, Plan, cosine, linear_warmup
from trainer.lr import compose as compose_policy
from trainer.lr.lint import lint
from trainer.optim.fused_step import FusedStep
from trainer.tools.drawing import COLORS, new_figure

Action = Callable[[], Any]
LEAST = 0.02
"""Seconds that a measurement repeats an action at least."""
LONG = 1.0
"""Seconds of an action that is not repeated."""
LARGEST = 1_000_000
"""Numbers in the largest tensor: larger nets have more of them."""


def stepping(sizes: list[int], groups: int) -> Action:
    """A step of fused AdamW on tensors of these sizes, dealt out to so many groups."""
    tensors = [nn.Parameter(torch.zeros(size)) for size in sizes]
    for tensor in tensors:
        tensor.grad = torch.full_like(tensor, 1e-3)
    optimizer = torch.optim.AdamW([{"params": tensors[i::groups]} for i in range(groups)], lr=1e-3, fused=True)
    return FusedStep(optimizer)


def parameters(count: int) -> Action:
    """The step of a net with so many parameters in two groups."""
    parts = max(2, count // LARGEST)
    return stepping([count // parts] * parts, 2)


def policy(groups: int, updates: int) -> LRPolicy:
    """Warm-up and cosine, with a multiplier of its own for each group."""
    rise, fall = compose_policy(Horizon(updates, 1), partial(linear_warmup, duration="5%"), cosine, "prefix")
    return LRPolicy(1e-3, 1.0, rise, fall, {f"g{i}": 1.0 / (i + 1) for i in range(groups)})


def rates(groups: int) -> Action:
    """The rates of all groups at an update."""
    of = policy(groups, 10_000)
    return lambda: of.lrs(5000)


def planned(updates: int) -> Action:
    """The plan of a run with four groups, and the checks on it."""
    of = policy(4, updates)
    return lambda: lint(Plan(of, Horizon(updates, 1)))


def jobs(count: int) -> Action:
    """The configs of so many jobs of a sweep over rates."""

    def composed() -> None:
        with initialized(CONF), composed_once():
            for i in range(count):
                compose("train", [f"optimizer.lr={0.001 + i * 1e-6:.6f}"], return_hydra_config=True)

    return composed


def ordered(samples: int) -> Action:
    """The order of an epoch."""
    order = Order(samples, 0, Layout(32))
    return lambda: order.indices(1)


COSTS: dict[str, tuple[str, Callable[[int], Action], list[int]]] = {
    "a step of AdamW": ("parameters", parameters, [10**4, 10**5, 10**6, 10**7, 10**8]),
    "a step of AdamW on 256 tensors": ("groups", lambda groups: stepping([64] * 256, groups), [1, 4, 16, 64, 256]),
    "the rates of an update": ("groups", rates, [1, 4, 16, 64, 256]),
    "the plan and its checks": ("updates", planned, [10**3, 10**4, 10**5, 10**6]),
    "composing a sweep": ("jobs", jobs, [1, 4, 20, 100, 500]),
    "the order of an epoch": ("samples", ordered, [10**3, 10**4, 10**5, 10**6, 10**7]),
}


def measured(options: Namespace) -> dict[str, Any]:
    """Seconds of each cost at each size in each round, and the exponent of the upper half of the sizes."""
    found: dict[str, Any] = {}
    for name, (by, make, sizes) in COSTS.items():
        sizes = sizes[: options.updates or len(sizes)]
        times = [[timed(make(size)) for _ in range(options.rounds)] for size in sizes]
        found[name] = {"by": by, "sizes": sizes, "seconds": times, **exponents(sizes, [median(one) for one in times])}
    return {"costs": found}


def timed(action: Action) -> float:
    """Seconds of an action, repeated for `LEAST` seconds, after one to warm up; of one that takes `LONG`, the first."""
    gc.collect()
    begun = perf_counter()
    action()
    if (spent := perf_counter() - begun) >= LONG:
        return spent
    count, begun = 0, perf_counter()
    while (spent := perf_counter() - begun) < LEAST:
        action()
        count += 1
    return spent / count


def exponents(sizes: list[int], seconds: list[float]) -> dict[str, float]:
    """The slopes of log seconds over log size: of all sizes, and between the two largest."""
    x, y = np.log(sizes), np.log(seconds)
    return {"exponent": float(np.polyfit(x, y, 1)[0]), "last": float((y[-1] - y[-2]) / (x[-1] - x[-2]))}


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    table, console = Table(box=SIMPLE), Console(highlight=False, soft_wrap=True, width=180)
    for title in ("cost", "by", "sizes", "seconds at the least and largest", "exponent", "of the two largest"):
        table.add_column(title, no_wrap=True)
    for name, one in report["costs"].items():
        ends = [median(one["seconds"][i]) for i in (0, -1)]
        sizes = f"{one['sizes'][0]:,} to {one['sizes'][-1]:,}"
        table.add_row(
            name, one["by"], sizes, f"{ends[0]:.2g} to {ends[1]:.2g}", f"{one['exponent']:.2f}", f"{one['last']:.2f}"
        )
    console.print(table)
    console.print(f"load {report['machine']['load']:.1f}")


def draw(costs: dict[str, Any], path: Path) -> None:
    """One panel for each cost: seconds over size, both logarithmic, with the range of the rounds."""
    figure, _ = new_figure(11, 5.6)
    figure.clear()
    for place, (name, one) in enumerate(costs.items()):
        panel = figure.add_subplot(2, 3, place + 1)
        middle = [median(times) for times in one["seconds"]]
        panel.loglog(one["sizes"], middle, "o-", color=COLORS[0], markersize=4)
        panel.fill_between(one["sizes"], *zip(*((min(t), max(t)) for t in one["seconds"])), color=COLORS[0], alpha=0.2)
        panel.set_title(f"{name}: exponent {one['last']:.2f}", fontsize=9)
        panel.set_xlabel(one["by"], fontsize=9)
        panel.set_ylabel("seconds", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
