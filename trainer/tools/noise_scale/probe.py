"""Measures the gradients of many micro-batches at a few updates of a run, with the weights of that update."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.config.components import Parts
from trainer.engine.protocols import MicroBatch
from trainer.engine.step import Step
from trainer.lr import ConfigError
from trainer.measure.noise_scale import Estimate, NoiseScale, squares


@dataclass(frozen=True)
class Sampling:
    """How many batches of what size are measured at a point; `batch` is a multiple of `micro`."""

    updates: int
    micro: int
    batch: int
    seed: int


@dataclass(frozen=True)
class Point:
    """What was measured just before an update: an estimate for the whole net, `all parameters`, and for each group."""

    update: int
    lr: float
    estimates: dict[str, Estimate]


@dataclass
class Probe:
    """An observer of updates that measures the noise scale at `points`, and stops the run after the last.

    Samples are drawn at each point, one by one and with replacement, so that the batches are independent and
    |G|² is that of the whole training set. Gradients are those of training, with its dropout and augmentation, before
    they are clipped. Weights, buffers, gradients and random state stay as they were: the run is the same without it.
    """

    parts: Parts
    points: Sequence[int]
    sampling: Sampling
    measured: list[Point] = field(default_factory=list)

    def attach(self, net: nn.Module, step: Step, optimizer: Optimizer) -> "Probe":
        """Take the net, the step and the optimizer of an updater."""
        self.net, self.step, self.optimizer = net, step, optimizer
        self.last_shown = 0.0
        self.weight: float | None = None
        return self

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """Measure, if update `t` is one of the points."""
        if t in self.points:
            self.measured.append(self._measure(t))
            self.parts.trainer.should_stop = t == max(self.points)
        self._show(f"training: update {t} of {self.parts.module.horizon.total}")

    def after(self, t: int) -> None:
        """Log nothing."""

    def _measure(self, t: int) -> Point:
        sampling, groups = self.sampling, self.optimizer.param_groups
        owners = [i for i, group in enumerate(groups) for _ in group["params"]]
        scale = NoiseScale(sampling.micro, sampling.batch)
        with self._unchanged():
            batches = self._batches(t)
            for done in range(sampling.updates):
                self._show(f"measuring at update {t}: batch {done} of {sampling.updates}")
                micros = islice(batches, sampling.batch // sampling.micro)
                scale.add(*squares((self._gradient(micro, t) for micro in micros), owners))
        names = ["all parameters", *(group.get("name", f"group {i}") for i, group in enumerate(groups))]
        return Point(t, groups[0]["lr"], dict(zip(names, scale.estimates())))

    def _batches(self, t: int) -> Iterator[Any]:
        """The micro-batches of a point, each with its random seed."""
        sampling, data = self.sampling, self.parts.data
        count = sampling.updates * (sampling.batch // sampling.micro)
        return data.random_batches(sampling.seed, t, sampling.micro, count)

    def _gradient(self, micro: MicroBatch, t: int) -> tuple[Tensor | None, ...]:
        torch.manual_seed(micro.seed)
        precision = self.parts.trainer.precision_plugin
        with precision.forward_context():
            loss, weight, *_ = self.step(self.net, precision.convert_input(micro.batch), t=t)
        if weight is not None and self.weight not in (None, float(weight)):
            raise ConfigError(
                "the micro-batches have unequal weights, and the noise scale compares those of equal weight: "
                "take a loss without class weights and ignored targets."
            )
        self.weight = None if weight is None else float(weight)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Afterwards restore what a forward pass in training mode changes: running statistics and random state."""
        kept = [(buffer, buffer.clone()) for buffer in self.net.buffers()]
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad():
            yield
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)

    def _show(self, text: str) -> None:
        """Progress on stderr: in place on a terminal, now and then elsewhere."""
        live = sys.stderr.isatty()
        if time.monotonic() - self.last_shown > (0.1 if live else 10):
            self.last_shown = time.monotonic()
            print(f"\r\033[K{text}" if live else text, end="" if live else "\n", file=sys.stderr, flush=True)
