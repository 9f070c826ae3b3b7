"""One optimizer on the digits: its loss over a grid of learning rates."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from trainer.cli.compose import CONF, compose_config
from trainer.engine.update import Diverged
from trainer.run import assemble, fit

QUIET = (
    *("callbacks=none", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1", "name=optimizers"),
    *("trainer.steps_per_execution=20", "lint.ignore=[huge-lr]"),
)
NEEDS = {
    "gd": ["trainer.accumulate=all", "data.batch_size=419"],
    "sgd_noise": ["trainer.gradient_noise=0.01", "hyper_schedule=gradient_noise_annealed"],
}
"""Overrides that an optimizer needs beside its name."""
FACTOR = math.sqrt(10)
FURTHER = 3
"""How often the grid grows at an end where the loss still falls."""


@dataclass
class Trial:
    """What an optimizer reached: validation loss and accuracy at the end of the run, by learning rate."""

    name: str
    target: str
    losses: dict[float, float] = field(default_factory=dict)
    accuracies: dict[float, float] = field(default_factory=dict)
    seconds: float = 0.0
    bytes: float = 0.0

    @property
    def best(self) -> float:
        """The learning rate with the lowest loss."""
        return min(self.losses, key=lambda lr: self.losses[lr])


def names() -> list[str]:
    """The options of `optimizer`, without `own` and `module`, which take those of the user."""
    return sorted(file.stem for file in (CONF / "optimizer").glob("*.yaml") if file.stem not in ("own", "module"))


def composed(*overrides: str) -> DictConfig:
    """The config that train.py would see."""
    return compose_config([*QUIET, *overrides])


def search(name: str, updates: int, points: int, tell: Callable[[str], Any] = print) -> Trial:
    """Train with the learning rates around the optimizer's own, and beyond where the best is the last of the grid."""
    cfg = composed(f"optimizer={name}")
    trial, middle = Trial(name, cfg.optimizer._target_), float(cfg.optimizer.lr)
    low, high = -(points // 2), points - 1 - points // 2
    for power in range(low, high + 1):
        _train(trial, middle * FACTOR**power, updates, tell)
    for _ in range(FURTHER if points > 1 else 0):
        ranked = sorted(trial.losses)
        if trial.best == ranked[-1]:
            high += 1
            _train(trial, middle * FACTOR**high, updates, tell)
        elif trial.best == ranked[0]:
            low -= 1
            _train(trial, middle * FACTOR**low, updates, tell)
    return trial


def _train(trial: Trial, lr: float, updates: int, tell: Callable[[str], Any]) -> None:
    lr = float(f"{lr:.2g}")
    length = (f"trainer.duration={updates}", f"trainer.validate={updates}")
    cfg = composed(
        f"optimizer={trial.name}", f"optimizer.lr={lr}", *NEEDS.get(trial.name, ["data.batch_size=64"]), *length
    )
    scores = {"val/loss": math.inf, "val/accuracy": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        try:
            assembly = assemble(cfg, Path(folder))
            fit(assembly)
            scores |= _finite(assembly.trainer)
        except Diverged:
            pass
    trial.losses[lr], trial.accuracies[lr] = scores["val/loss"], scores["val/accuracy"]
    tell(f"{trial.name:20} lr {lr:<8g} loss {scores['val/loss']:.4f}")


def _finite(trainer: pl.Trainer) -> dict[str, float]:
    """The scores of the last validation; none if the loss is not finite."""
    scores = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    return scores if math.isfinite(scores["val/loss"]) else {}
