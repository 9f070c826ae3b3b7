"""Runs of a family in a plain loop: healthy ones, and ones that were made bad in a known way."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from experiments.doctor_cases.families import Family
from trainer.doctor import Log, Series

OPTIMIZERS: dict[str, tuple[float, Any]] = {
    "adam": (1e-3, torch.optim.Adam),
    "adamw": (1e-3, torch.optim.AdamW),
    "nadam": (1e-3, torch.optim.NAdam),
    "radam": (1e-3, torch.optim.RAdam),
    "rmsprop": (1e-3, torch.optim.RMSprop),
    "adagrad": (1e-1, torch.optim.Adagrad),
    "momentum": (1e-1, partial(torch.optim.SGD, momentum=0.9)),
    "adamax": (1e-2, torch.optim.Adamax),
    "nesterov": (1e-1, partial(torch.optim.SGD, momentum=0.9, nesterov=True)),
    "sgd": (1e-1, torch.optim.SGD),
    "amsgrad": (1e-3, partial(torch.optim.Adam, amsgrad=True)),
    "adadelta": (1.0, torch.optim.Adadelta),
    "adafactor": (1e-2, torch.optim.Adafactor),
    "lion": (1e-3, lambda *weights, **settings: Lion(*weights, **settings)),
}
"""The middle of the grid of rates, and how each is made."""
GRID = [10 ** (k / 2) for k in range(-8, 7)]
SHARES = {
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "constant": lambda x: 1.0,
    "linear": lambda x: 1 - x,
    "step": lambda x: 0.1 ** int(3 * x),
}


class Lion(Optimizer):
    """Chen et al. 2023, arXiv:2302.06675."""

    def __init__(self, weights: Any, lr: float, weight_decay: float) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_((0.9 * mean + 0.1 * weight.grad).sign(), alpha=-group["lr"])
                mean.mul_(0.99).add_(weight.grad, alpha=0.01)


@dataclass(frozen=True)
class RunSettings:
    """How a run is made. `scale` multiplies the targets; `shuffled` draws them anew; `dead` nets give constants."""

    lr: float
    schedule: str = "cosine"
    batch: int = 32
    warmup: float = 0.05
    weight_decay: float = 0.0
    seed: int = 0
    scale: float = 1.0
    shuffled: bool = False
    dead: bool = False


class Case(NamedTuple):
    """A run, what was done to it ("healthy", or a fault), and its log."""

    name: str
    fault: str
    log: Log


def trained(family: Family, settings: RunSettings) -> Log:
    """The log of a run, up to its first number that is not finite."""
    data, total = family.data(), family.updates
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed + 100)
    net = family.net()
    if settings.dead:
        _kill(net)
    optimizer = OPTIMIZERS[family.optimizer][1](net.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    rows: list[tuple[float, float, float]] = []
    scores: list[tuple[int, float]] = []
    for t in range(total):
        rate = (
            settings.lr * min(1.0, (t + 1) / max(1.0, settings.warmup * total)) * SHARES[settings.schedule](t / total)
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = data.batch(settings.batch, generator)
        if settings.shuffled:
            targets = targets[torch.randperm(len(targets), generator=generator)]
        loss = family.loss(net.train()(inputs), targets * settings.scale if settings.scale != 1 else targets)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([one.grad for one in net.parameters() if one.grad is not None])
        rows.append((loss.item(), norm.item(), rate))
        if not all(map(math.isfinite, rows[-1])):
            break
        optimizer.step()
        if (t + 1) % (total // 10) == 0:
            inputs, targets = data.held_out
            with torch.no_grad():
                targets = targets * settings.scale if settings.scale != 1 else targets
                scores.append((t, family.loss(net.eval()(inputs), targets).item()))
    return _log(rows, scores, settings, total)


def _log(
    rows: list[tuple[float, float, float]], scores: list[tuple[int, float]], settings: RunSettings, total: int
) -> Log:
    columns = dict(zip(("train/loss", "train/grad_norm", "lr/all"), zip(*rows)))
    series = {tag: Series(range(len(rows)), values) for tag, values in columns.items()}
    series["val/loss"] = Series([t for t, _ in scores], [score for _, score in scores])
    return Log(series, total, int(settings.warmup * total), settings.batch, settings.lr, settings.weight_decay)


def _kill(net: nn.Module) -> None:
    """Give each hidden linear layer a bias at which no unit passes anything on."""
    for layer in [one for one in net.modules() if isinstance(one, nn.Linear)][:-1]:
        nn.init.constant_(layer.bias, -100.0)


def _dies(family: Family) -> bool:
    """Whether `_kill` makes outputs that are the same for all inputs; a BatchNorm behind a layer undoes it."""
    net = family.net()
    _kill(net)
    outputs = net(family.data().inputs[:32])
    return bool((outputs - outputs[:1]).abs().max() < 1e-6)


def final(log: Log) -> float:
    """The mean of the last thirty losses, infinite where the run broke."""
    losses = log["train/loss"].values
    return fmean(losses[-30:]) if len(losses) == log.total and math.isfinite(losses[-1]) else math.inf


def cases(family: Family) -> Iterator[Case]:
    """Up to five healthy runs around the best rate of a grid over seven decades, and those that were made bad.

    A rate is too high or too low where at least half of the fall at the best rate, or seven tenths of it, is lost. A
    run is healthy where it keeps half.
    """
    middle = OPTIMIZERS[family.optimizer][0]
    logs = {middle * factor: trained(family, RunSettings(middle * factor)) for factor in GRID}
    best = min(logs, key=lambda lr: final(logs[lr]))
    end, third = final(logs[best]), RunSettings(best / 3)
    start = fmean(logs[best]["train/loss"].values[:2])
    yield Case("best rate", "healthy", logs[best])
    for name, settings in {
        "a third, linear": replace(third, schedule="linear", seed=1),
        "a third, constant": replace(third, schedule="constant", seed=2),
        "a third, batches of 8": replace(third, batch=8, seed=3),
        "half, in steps, no warm-up": replace(third, lr=best / 2, schedule="step", warmup=0.0, seed=4),
    }.items():
        if final(log := trained(family, settings)) < end + 0.5 * (start - end):
            yield Case(name, "healthy", log)
    high = [lr for lr in logs if lr > best and final(logs[lr]) > end + 0.5 * (start - end)]
    low = [lr for lr in reversed(logs) if lr < best and final(logs[lr]) > start - 0.3 * (start - end)]
    yield from (Case(f"{lr / best:.0f} times the best rate", "too high", logs[lr]) for lr in (*high[:1], *high[2:3]))
    yield from (Case(f"1/{best / lr:.0f} of the best rate", "too low", logs[lr]) for lr in (*low[:1], *low[3:4]))
    yield from _made_bad(family, best, high, low)


def _made_bad(family: Family, best: float, high: list[float], low: list[float]) -> Iterator[Case]:
    third, squares = RunSettings(best / 3), family.loss is torch.nn.functional.mse_loss
    faults = {
        "too low": replace(third, lr=low[min(1, len(low) - 1)], batch=8, seed=5) if low else None,
        "too high": replace(third, lr=high[0], schedule="constant", seed=6) if high else None,
        "no signal": None if squares else replace(third, shuffled=True, seed=7),
        "target scale": replace(third, scale=1000.0, seed=8) if squares else None,
        "dead net": replace(third, dead=True, seed=9) if _dies(family) else None,
        "weight decay": replace(
            third, lr=best, schedule="constant", weight_decay=min(1 / best, 30 / (best * family.updates)), seed=10
        ) if family.optimizer == "adamw" else None,
    }  # fmt: skip
    for fault, settings in faults.items():
        if settings is not None:
            yield Case(f"{fault}, seed {settings.seed}", fault, trained(family, settings))
