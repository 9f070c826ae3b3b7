"""An arm trained through the framework, in this process."""

import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn

from data.order import Pick
from experiments.arms import Arm, Trial
from trainer.cli.run_id import register
from trainer.engine.update import Diverged
from trainer.run import Assembly, assemble, fit

CONF = Path(__file__).resolve().parents[1] / "conf"
QUIET = (
    *("callbacks=none", "logger=none", "measure=none", "trainer.accelerator=cpu", "trainer.threads=1"),
    *("trainer.steps_per_execution=50", "trainer.log_every=1000", "+trainer.lightning.limit_val_batches=0"),
    *("name=experiment", "lint.ignore=[huge-lr,unreached]"),
)

AT_ONCE = 4096
"""Samples that are scored at a time."""


@lru_cache(maxsize=64)
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*QUIET, *overrides])


def composed(overrides: Iterable[str], seed: int) -> DictConfig:
    """The config that train.py would see, with nothing that watches the run and no validation."""
    cfg = deepcopy(_composed(tuple(overrides)))
    cfg.seed = seed
    cfg.trainer.validate = cfg.trainer.duration
    return cfg


class Reached(Exception):
    """The training loss is below the target of the arm."""


class Curve:
    """An observer of updates: measures the training loss every so many of them, and raises `Reached` at `target`."""

    def __init__(self, assembly: Assembly, every: int, target: float | None) -> None:
        self.assembly, self.every, self.target = assembly, every, target
        self.points: list[tuple[int, float]] = []
        self._samples = 0

    def attach(self, net: nn.Module, loss: Any, optimizer: Any) -> "Curve":
        """The observer of an updater."""
        return self

    def before(self, t: int, update: Sequence[Any]) -> None:
        """Count the samples of the update."""
        self._samples += sum(len(micro.inputs) for micro in update)

    def after(self, t: int) -> None:
        """Measure, if it is time."""
        if (t + 1) % self.every == 0:
            loss, _ = scored(self.assembly, "train")
            self.points.append((self._samples, loss))
            if self.target is not None and loss < self.target:
                self.assembly.module.clock.t = t + 1
                raise Reached


def train(arm: Arm, seed: int) -> Trial:
    """Train the arm from a seed, which decides initial weights and order of the data; what it reached."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        assembly = assemble(composed(arm.overrides, seed), Path(folder))
        assembly.trainer.callbacks.remove(assembly.checkpointing)  # type: ignore[attr-defined]
        curve = Curve(assembly, arm.every, arm.target) if arm.every else None
        if curve:
            assembly.module.observers = assembly.module.observers.with_probe(curve.attach)
        if arm.prepare:
            arm.prepare(assembly)
        finite = _fitted(assembly)
        loss, error = scored(assembly, "train")[0], scored(assembly, "test")[1]
        finite = finite and math.isfinite(loss)
        return Trial(
            arm=arm.name,
            seed=seed,
            train_loss=loss if finite else math.inf,
            test_error=error if finite else 1.0,
            updates=assembly.module.clock.t,
            seconds=time.perf_counter() - begun,
            curve=tuple(curve.points) if curve else (),
            seen=dict(arm.look(assembly)) if arm.look else {},
        )


def _fitted(assembly: Assembly) -> bool:
    """Train to the end or to the target; False where it diverges."""
    try:
        fit(assembly, None)
    except Diverged:
        return False
    except Reached:
        pass
    return True


def scored(assembly: Assembly, split: str) -> tuple[float, float]:
    """The mean loss and the share of wrong classes over the whole of `train`, `val` or `test`, as the net is now."""
    net, source = assembly.module.net, getattr(assembly.data.splits, split)  # type: ignore[attr-defined]
    if source is None:
        return math.nan, math.nan
    device = next(net.parameters()).device
    source = source.to(device)
    loss = wrong = 0.0
    training = net.training
    net.eval()
    with torch.no_grad():
        parts = torch.arange(len(source), device=source.home).split(AT_ONCE)
        for inputs, targets in source.batches(Pick(0, part) for part in parts):
            outputs: Tensor = net(inputs)
            share = len(targets) / len(source)
            loss += share * assembly.module.loss(outputs, targets).item()
            wrong += share * (outputs.argmax(1) != targets).float().mean().item()
    net.train(training)
    return loss, wrong
