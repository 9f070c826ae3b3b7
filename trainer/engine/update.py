"""The update: the one place where gradients become a step."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from trainer.engine.attribute_setters import GradientNoise
from trainer.engine.averaging import Averaging
from trainer.engine.clipping import clip_norms, clip_units
from trainer.engine.clock import Clock
from trainer.engine.lr_control import LRControl
from trainer.engine.sam import ascended
from trainer.log.metric_buffer import MetricBuffer, Observation
from trainer.measure.micro_gradients import MicroGradients


class MicroBatch(Protocol):
    """Inputs and targets of one forward pass, and the seed of everything random in it."""

    inputs: Tensor
    targets: Tensor
    seed: int


class Observer(Protocol):
    """What looks at an update just before its step and just after it, and keeps numbers on the device."""

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """The gradients of update `t`, made of these micro-batches, are ready; its rates are written."""

    def after(self, t: int) -> Observation | None:
        """Update `t` has been applied."""


class Diverged(RuntimeError):
    """A loss or a gradient was not finite."""


@dataclass(frozen=True)
class Backward:
    """How gradients are made on this machine: precision, loss scaling, and when processes exchange them."""

    device: torch.device
    before_backward: Callable[[Tensor], Any] | None = None
    no_sync: Callable[[], AbstractContextManager] = nullcontext
    scaler: GradScaler | None = None
    autocast: bool = False

    @classmethod
    def of(cls, trainer: pl.Trainer, device: torch.device) -> "Backward":
        """How this trainer makes gradients."""
        strategy, precision = trainer.strategy, trainer.precision_plugin
        scaler = precision.scaler if isinstance(precision, MixedPrecision) else None
        mixed = isinstance(precision, MixedPrecision)
        if not isinstance(strategy, DDPStrategy):
            return cls(device, scaler=scaler, autocast=mixed)
        return cls(device, strategy.pre_backward, strategy.block_backward_sync, scaler, mixed)

    def __call__(self, loss: Tensor) -> None:
        """Add the gradients of `loss` to the parameters."""
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        if self.before_backward is not None:
            self.before_backward(loss)
        loss.backward()

    def full_precision(self) -> AbstractContextManager:
        """Autocast is for the forward pass alone."""
        return torch.autocast(self.device.type, enabled=False) if self.autocast else nullcontext()

    def reseed(self, seed: int) -> None:
        """Seed the generators of this device, so that dropout is a function of the update."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)


@dataclass
class Updater:
    """Forward, loss, backward, clip, noise, write the learning rate, finite check, step, advance the clock, average.

    The clock advances if and only if the update was applied. An update that loss scaling skips is made again, on
    the same data at the same rate, with a lower scale. Where a fused optimizer skips by itself what is not finite (on
    a GPU), no update waits for the check: the weights stay, and the run stops when the journal is drained next.

    `clip` bounds the gradients of all groups but those with a limit of their own in `limits`; before, `spread` takes
    those of micro-batches, `agc` bounds each unit's, and `sam` is the radius of an ascent to where they are made.
    """

    net: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Optimizer
    control: LRControl
    clock: Clock
    journal: MetricBuffer
    backward: Backward
    clip: float | None = None
    noise: GradientNoise | None = None
    observer: Observer | None = None
    limits: Sequence[float | None] = ()
    agc: float | None = None
    sam: float | None = None
    averaging: Averaging | None = None
    spread: MicroGradients | None = None
    tries = 40

    def __post_init__(self) -> None:
        self.groups = [list(group["params"]) for group in self.optimizer.param_groups]
        self.parameters = [parameter for group in self.groups for parameter in group]
        self.limits = self.limits or [None] * len(self.groups)
        skips_nonfinite = all(group.get("fused") for group in self.optimizer.param_groups)
        self.checks_each = self.backward.device.type == "cpu" or not skips_nonfinite

    def __call__(self, update: Sequence[MicroBatch]) -> None:
        """Apply one update made of the micro-batches of `update`. Raises `Diverged` where it is not finite."""
        if self.control.policy.hyper_schedules:
            self.control.turn(self.clock.at)
        for _ in range(self.tries):
            loss = self._gradients(update)
            if self.sam is not None:
                with ascended(self.net, self.parameters, self.sam):
                    self._gradients(update)
            with self.backward.full_precision():
                norm = self._clip_gradients()
                if self.noise is not None:
                    self.noise.add(self.parameters, self.clock.t)
                self.control.write(self.optimizer, self.clock.at)
                if self.observer is not None:
                    self.observer.before(self.clock.t, update)
                applied = self._step(loss, norm)
            for parameter in self.parameters:
                parameter.grad = None
            if applied:
                seen = self.observer.after(self.clock.t) if self.observer is not None else None
                self.journal.add(self.clock.t, loss, norm, self.control, seen)
                self.clock.t += 1
                if self.averaging is not None:
                    self.averaging.take(self.clock.t)
                return
        raise Diverged(f"update {self.clock.t}: the gradients overflow at every loss scale. Lower the learning rate.")

    def _gradients(self, update: Sequence[MicroBatch]) -> Tensor:
        """The mean loss of the update, its gradients left in the parameters, exchanged on the last micro-batch."""
        losses = []
        for i, micro in enumerate(update, start=1):
            self.backward.reseed(micro.seed)
            with nullcontext() if i == len(update) else self.backward.no_sync():
                loss = self.loss(self.net(micro.inputs), micro.targets)
                with self.backward.full_precision():
                    self.backward(loss / len(update) if len(update) > 1 else loss)
            if self.spread is not None:
                self.spread.take(i, of=len(update))
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _clip_gradients(self) -> Tensor:
        """The norm of all gradients together, each unit's bounded; then they are clipped."""
        if self.backward.scaler is not None:
            self.backward.scaler.unscale_(self.optimizer)
        if self.agc is not None:
            clip_units(self.parameters, self.agc)
        return clip_norms(self.groups, self.limits, self.clip)

    def _step(self, loss: Tensor, norm: Tensor) -> bool:
        """Step the optimizer; whether the update was applied."""
        scaler = self.backward.scaler
        if scaler is not None:
            before = scaler.get_scale()
            scaler.step(self.optimizer)
            scaler.update()
            return scaler.get_scale() >= before
        if self.checks_each:
            shared = self.backward.before_backward is not None  # the norm is common to all processes, the loss is not
            self.check(self.clock.t, norm.item(), None if shared else loss.item())
        else:
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        return True

    @staticmethod
    def check(t: int, norm: float, loss: float | None = None) -> None:
        """Raise `Diverged` where the gradient norm or the loss of update `t` is not finite."""
        if not math.isfinite(norm) or not math.isfinite(loss or 0.0):
            told = f"gradient norm {norm}" if loss is None else f"loss {loss} and gradient norm {norm}"
            raise Diverged(
                f"update {t} has {told}: the run stops, its checkpoints are from before. "
                "Lower optimizer.lr, lengthen the warm-up, or set trainer.clip."
            )
