"""The work of the update benchmark, and two ways to do it: a bare PyTorch loop, and Cadence."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from data.order import Layout, Order, permutation
from data.source import Memory
from data.synthetic import Synthetic
from models.mlp import MLP
from trainer.cli.compose import compose_config
from trainer.engine.module import Module
from trainer.log.eventfile import float32
from trainer.run import Parts, assemble, fit

FEATURES, WIDTH, CLASSES, SAMPLES, BATCH = 64, 32, 10, 4096, 32
PEAK_LR, WEIGHT_DECAY = 3e-3, 0.01


@dataclass(frozen=True)
class Work:
    """What every loop does: `updates` updates of one net from the same start, on the same batches and rates."""

    updates: int
    threads: int
    inputs: Tensor
    targets: Tensor
    start: nn.Module

    @classmethod
    def of(cls, updates: int, threads: int) -> "Work":
        """An MLP 64-32-10 on Gaussian inputs in memory, from weights of seed 0."""
        torch.manual_seed(0)
        sizes = {"features": FEATURES, "classes": CLASSES, "samples": SAMPLES, "batch_size": BATCH}
        train = Synthetic(kind="classification", val_samples=0, test_samples=0, **sizes).read().train
        assert isinstance(train, Memory)
        return cls(updates, threads, train.inputs, train.targets, MLP(FEATURES, CLASSES, [WIDTH]))

    @property
    def warmup(self) -> int:
        """Updates of the linear warm-up: a twentieth of the run."""
        return max(1, self.updates // 20)

    def factor(self, t: int) -> float:
        """The share of the peak rate at update `t`: linear warm-up, then half a cosine."""
        if t < self.warmup:
            return (t + 1) / self.warmup
        return 0.5 * (1.0 + math.cos(math.pi * ((t - self.warmup) / (self.updates - self.warmup))))

    def __len__(self) -> int:
        return self.updates

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, reshuffled each epoch and gathered from memory."""
        epoch = SAMPLES // BATCH
        for t in range(self.updates):
            if t % epoch == 0:
                order = permutation(SAMPLES, 0, t // epoch)
            picked = order[t % epoch * BATCH : (t % epoch + 1) * BATCH]
            yield self.inputs.index_select(0, picked), self.targets.index_select(0, picked)

    def optimizer(self, net: nn.Module) -> torch.optim.AdamW:
        """Fused AdamW with two groups: matrices decay, biases do not."""
        return torch.optim.AdamW(decay_groups(net, WEIGHT_DECAY), lr=PEAK_LR, fused=True)


def decay_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of parameters: matrices decay, biases do not."""
    kinds: tuple[list[nn.Parameter], ...] = ([], [])
    for parameter in net.parameters():
        kinds[parameter.ndim < 2].append(parameter)
    return [{"params": kinds[0], "weight_decay": weight_decay}, {"params": kinds[1], "weight_decay": 0.0}]


def train_bare(
    model: nn.Module, optimizer: torch.optim.Optimizer, lr: float, batches: Iterable[tuple[Tensor, Tensor]]
) -> None:
    """Make an update with each batch, at a constant rate."""
    for inputs, targets in batches:
        for group in optimizer.param_groups:
            group["lr"] = lr
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()


class Spent(NamedTuple):
    """Seconds of wall time, and of CPU time of all threads of this process."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Spent":
        """The times when a GPU, if one is in use, has done what it was given."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return cls(time.perf_counter(), time.process_time())

    def __sub__(self, begun: "Spent") -> "Spent":
        return Spent(self.wall - begun.wall, self.cpu - begun.cpu)

    def __truediv__(self, updates: int) -> "Spent":
        return Spent(self.wall / updates, self.cpu / updates)


class Outcome(NamedTuple):
    """The time from the first update until the last is logged on disk, and the trained net."""

    spent: Spent
    net: nn.Module


Loop = Callable[[Work, Path], Outcome]


class Stopwatch(pl.Callback):
    """Times a fit from after its set-up until the last update is made and logged on disk."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.begun = Spent.now()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, Module):
            pl_module.flush()
        for logger in trainer.loggers:
            logger.save()
        self.spent = Spent.now() - self.begun


def bare(work: Work, folder: Path) -> Outcome:
    """PyTorch alone, the rate written from its formula; nothing is logged or checked."""
    net = deepcopy(work.start)
    optimizer = work.optimizer(net)
    begun = Spent.now()
    for t, (inputs, targets) in enumerate(work):
        lr = PEAK_LR * work.factor(t)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad()
        cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    return Outcome(Spent.now() - begun, net)


def cadence(work: Work, folder: Path) -> Outcome:
    """A run of Cadence that logs every update; RuntimeError if the event file lacks one."""
    outcome = _fitted(work, folder)
    prove(work, folder)
    return outcome


def unlogged(work: Work, folder: Path) -> Outcome:
    """The same run with `logger=none`."""
    return _fitted(work, folder, "logger=none")


def _fitted(work: Work, folder: Path, *words: str) -> Outcome:
    overrides = (
        f"name=benchmark data=synthetic data.features={FEATURES} data.classes={CLASSES} data.samples={SAMPLES} "
        f"data.batch_size={BATCH} data.val_samples=0 data.test_samples=0 model.hidden=[{WIDTH}] "
        f"task.loss.label_smoothing=0.0 optimizer=adamw optimizer.lr={PEAK_LR} optimizer.weight_decay={WEIGHT_DECAY} "
        f"schedule=cosine_warmup warmup.duration={work.warmup} callbacks=none trainer=cpu "
        f"trainer.threads={work.threads} trainer.duration={work.updates} trainer.validate={work.updates}"
    )
    assembly = assemble(compose_config([*overrides.split(), *words]), folder)
    assembly.module.net.load_state_dict(work.start.state_dict())
    watch = Stopwatch()
    assembly.trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    fit(assembly)
    return Outcome(watch.spent, assembly.module.net)


def prove(work: Work, folder: Path) -> None:
    """Check that the event file holds the loss and the exact float32 rate of every update, as TensorBoard reads it."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    rates = float32(PEAK_LR * work.factor(t) for t in range(work.updates)).tolist()
    for tag in ("train/loss", "lr/decay", "lr/no_decay"):
        points = events.Scalars(tag)
        if [point.step for point in points] != list(range(work.updates)):
            raise RuntimeError(f"{tag} was logged {len(points)} times in {work.updates} updates.")
        if tag != "train/loss" and [point.value for point in points] != rates:
            raise RuntimeError(f"{tag} in the event file is not the rate of the formula.")


def batches(assembly: Parts, layout: Layout, device: str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of the run's training data in a layout, in the order of the run."""
    source = assembly.data.splits.train.to(torch.device(device))  # type: ignore[attr-defined]
    order = Order(len(source), assembly.data.seed, layout, source.home)  # type: ignore[attr-defined]
    return source.batches(order.picks(0, assembly.module.horizon.total))
