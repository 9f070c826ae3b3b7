"""The time of one learning rate of a policy, beside a step of torch's and transformers' schedulers; and of a plan."""

import gc
import math
import random
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from statistics import median
from time import process_time
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from benchmarks.loops import Spent
from trainer.lr import Horizon, LRPolicy, Plan, compose, compose_schedule, cooldown, cosine, linear_warmup, wsd
from trainer.lr.lint import lint

PEAK_LR, GROUPS = 1e-3, {"matrices": 1.0, "embeddings": 0.5, "vectors": 1.0, "head": 0.1}
TARGET_SHARE, TARGET_S, PLANS = 0.25, 0.4, 3
LINES = {"cadence_written": ("rates of four groups, written", "torch's SequentialLR", "<= 1.00")}
NAMES = {
    "cadence": "Cadence",
    "cadence_own": "Cadence, one of its own",
    "cadence_written": "Cadence, written",
    "torch": "torch SequentialLR",
    "transformers": "transformers cosine",
}


def measured(options: Namespace) -> dict[str, Any]:
    """The time of an update's learning rates for four groups in each round, in shuffled order; and of a run's plan."""
    updates = options.updates or 10_000
    makers, skipped = available(updates)
    agree(updates, makers)
    loops = {name: partial(evaluated, policy(updates, name == "cadence_own")) for name in ("cadence", "cadence_own")}
    loops["cadence_written"] = partial(written, policy(updates))
    loops |= {name: partial(stepped, make) for name, make in makers.items()}
    names, order, times = list(loops), random.Random(0), []
    for _ in range(options.rounds + 1):
        order.shuffle(names)
        spent = {}
        for name in names:
            gc.collect()
            spent[name] = loops[name](updates) / updates
        times.append({name: spent[name] for name in loops})
    planned = [planning(options.planned) for _ in range(min(PLANS, options.rounds))]
    return {
        "updates": updates,
        "times": times[1:],
        "unit": "rounds",
        "skipped": skipped,
        "planned": {
            "updates": options.planned,
            "plan_s": [plan for plan, _ in planned],
            "lint_s": [checks for _, checks in planned],
        },
    }


def policy(updates: int, own: bool = False) -> LRPolicy:
    """Four groups, linear warm-up, cosine and cooldown; with `own`, one of them has a plateau and a decay."""
    horizon, cool = Horizon(updates, 1), partial(cooldown, duration="20%")
    rise, fall = compose(horizon, partial(linear_warmup, duration="5%"), cosine, "prefix", cool)
    other = {"head": compose_schedule(horizon, rise.updates, wsd, "prefix", cool)} if own else {}
    return LRPolicy(PEAK_LR, 1.0, rise, fall, GROUPS, other)


def evaluated(of: LRPolicy, updates: int) -> Spent:
    """Ask for the rates of all groups at each update."""
    rates = of.lrs
    begun = Spent.now()
    for t in range(updates):
        rates(t)
    return Spent.now() - begun


def written(of: LRPolicy, updates: int) -> Spent:
    """The same, and write them into the groups of an optimizer."""
    rates, groups = of.lrs, optimizer().param_groups
    begun = Spent.now()
    for t in range(updates):
        for group, lr in zip(groups, rates(t)):
            group["lr"] = lr
    return Spent.now() - begun


def stepped(make: Callable[[torch.optim.Optimizer], LRScheduler], updates: int) -> Spent:
    """Step a scheduler after each update."""
    with warnings.catch_warnings(action="ignore"):
        step = make(optimizer()).step
        begun = Spent.now()
        for _ in range(updates):
            step()
        return Spent.now() - begun


def optimizer() -> torch.optim.SGD:
    """An optimizer with the four groups that has made an update."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": PEAK_LR * mult} for mult in GROUPS.values()]
    made = torch.optim.SGD(groups)
    made.step()
    return made


def available(updates: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The function that makes each peer's scheduler, and the reason if one is missing."""
    width = round(updates * 0.05)

    def sequential(of: torch.optim.Optimizer) -> SequentialLR:
        parts = [LinearLR(of, 1 / width, total_iters=width - 1), CosineAnnealingLR(of, updates - width)]
        return SequentialLR(of, parts, [width])

    try:
        from transformers import get_cosine_schedule_with_warmup as cosine_with_warmup
    except ImportError as error:
        reason = f"{' '.join(str(error).split())}: pip install transformers brings it"
        return {"torch": sequential}, {"transformers": reason}
    cosine_peer = partial(cosine_with_warmup, num_warmup_steps=width, num_training_steps=updates)
    return {"torch": sequential, "transformers": cosine_peer}, {}


def agree(updates: int, makers: dict[str, Any]) -> None:
    """Raise RuntimeError if a peer has other rates between the warm-up and the cooldown, which only Cadence has."""
    ours = policy(updates)
    for name, make in makers.items():
        with warnings.catch_warnings(action="ignore"):
            scheduler = make(made := optimizer())
            for t in range(round(updates * 0.8)):
                theirs = [group["lr"] for group in made.param_groups]
                if t >= ours.warmup.updates and not all(map(partial(math.isclose, rel_tol=1e-6), theirs, ours.lrs(t))):
                    raise RuntimeError(f"{name} has {theirs[0]} at update {t}, not {ours.lrs(t)[0]}: another curve.")
                scheduler.step()


def planning(updates: int) -> tuple[float, float]:
    """Seconds of processor time for the plan of a run of so many updates, and for the checks on it."""
    of = policy(updates)
    gc.collect()
    begun = process_time()
    plan = Plan(of, Horizon(updates, 1))
    made = process_time()
    lint(plan)
    return made - begun, process_time() - made


def show(report: dict[str, Any]) -> None:
    """Print the table, the plan and what was skipped."""
    console, where, rows = Console(highlight=False, soft_wrap=True), report["machine"], report["rows"]
    table = Table(box=SIMPLE)
    table.add_column("µs, four groups", no_wrap=True)
    for title in ("median", "min", "max", "× Cadence", "of a round"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in rows.items():
        times = [f"{row[key]:.2f}" for key in ("median_us", "min_us", "max_us")]
        table.add_row(NAMES[name], *times, f"{row['ratio']:.2f}", f"{row['ratio_min']:.2f}-{row['ratio_max']:.2f}")
    console.print(table)
    console.print(
        f"{report['updates']:,} updates; {len(rows['cadence']['rounds_us'])} rounds; load {where['load']:.1f}. "
        f"Target: at most {TARGET_SHARE:g} of torch's step."
    )
    planned = report["planned"]
    spread = [
        f"{median(planned[key]):.2f} s ({min(planned[key]):.2f} to {max(planned[key]):.2f})"
        for key in ("plan_s", "lint_s")
    ]
    console.print(
        f"plan of {planned['updates']:,} updates {spread[0]}, its checks {spread[1]}. Target: {TARGET_S:g} s."
    )
    for name, reason in report["skipped"].items():
        console.print(f"{NAMES[name]}: skipped, {reason}", markup=False)
