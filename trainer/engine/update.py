"""One optimizer update, from micro-batches to the step."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from trainer.engine.averaging import Averaging
from trainer.engine.clock import Clock
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.engine.lr_control import LRControl
from trainer.engine.protocols import GradientRecorder, Loss, MicroBatch, Observer
from trainer.log.metric_buffer import MetricBuffer


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
        """From Lightning's trainer."""
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
        """Switches autocast off: it is for the forward pass only."""
        return torch.autocast(self.device.type, enabled=False) if self.autocast else nullcontext()

    def reseed(self, seed: int) -> None:
        """Seed the generators of this device, so that dropout is a function of the update."""
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)


@dataclass
class Updater:
    """Forward, loss, backward, treat gradients, write the learning rate, finite check, step, advance clock, average.

    The clock advances if and only if the update was applied. An update that loss scaling skips is repeated, on the
    same data at the same rate, with a lower scale. Where a fused optimizer on a GPU skips updates that are not finite,
    nothing waits for the check: the weights stay, and the run stops when the metrics are next flushed.
    """

    net: nn.Module
    loss: Loss
    optimizer: Optimizer
    control: LRControl
    clock: Clock
    metric_buffer: MetricBuffer
    backward: Backward
    treatment: GradientTreatment = GradientTreatment()
    averaging: Averaging | None = None
    observer: Observer | None = None
    micro_gradients: GradientRecorder | None = None
    tries = 40

    def __post_init__(self) -> None:
        self.groups = [list(group["params"]) for group in self.optimizer.param_groups]
        self.parameters = [parameter for group in self.groups for parameter in group]
        skips_nonfinite = all(group.get("fused") for group in self.optimizer.param_groups)
        self.checks_each = self.backward.device.type == "cpu" or not skips_nonfinite

    def __call__(self, update: Sequence[MicroBatch]) -> None:
        """Apply one update made of the micro-batches of `update`. Raises `Diverged` where it is not finite."""
        if self.control.policy.hyper_schedules:
            self.control.evaluate(self.clock.at)
        treatment = self.treatment.at(self.control.values)
        for _ in range(self.tries):
            loss = treatment.make(self.net, self.parameters, lambda: self._gradients(update))
            with self.backward.full_precision():
                if self.backward.scaler is not None:
                    self.backward.scaler.unscale_(self.optimizer)
                norm = treatment.apply(self.groups, self.clock.t)
                self.control.write(self.optimizer, self.clock.at)
                if self.observer is not None:
                    self.observer.before(self.clock.t, update)
                applied = self._step(loss, norm)
            for parameter in self.parameters:
                parameter.grad = None
            if applied:
                return self._conclude(loss, norm)
        raise Diverged(f"update {self.clock.t}: the gradients overflow at every loss scale. Lower the learning rate.")

    def _gradients(self, update: Sequence[MicroBatch]) -> Tensor:
        """The mean loss of the update; leaves its gradients in the parameters, exchanged on the last micro-batch."""
        losses = []
        for i, micro in enumerate(update, start=1):
            self.backward.reseed(micro.seed)
            with nullcontext() if i == len(update) else self.backward.no_sync():
                loss = self.loss(self.net(micro.inputs), micro.targets)
                with self.backward.full_precision():
                    self.backward(loss / len(update) if len(update) > 1 else loss)
            if self.micro_gradients is not None:
                self.micro_gradients.take(i, of=len(update))
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _step(self, loss: Tensor, norm: Tensor) -> bool:
        """Step the optimizer; returns whether the update was applied."""
        scaler = self.backward.scaler
        if scaler is not None:
            before = scaler.get_scale()
            scaler.step(self.optimizer)
            scaler.update()
            return scaler.get_scale() >= before
        if self.checks_each:
            shared = self.backward.before_backward is not None  # the norm is common to all processes, the loss is not
            check_finite(self.clock.t, norm.item(), None if shared else loss.item())
        else:
            self.optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        return True

    def _conclude(self, loss: Tensor, norm: Tensor) -> None:
        """Log the applied update, advance the clock, average the weights."""
        observation = self.observer.after(self.clock.t) if self.observer is not None else None
        self.metric_buffer.add(self.clock.t, loss, norm, self.control, observation)
        self.clock.t += 1
        if self.averaging is not None:
            self.averaging.take(self.clock.t)


def check_finite(t: int, norm: float, loss: float | None = None) -> None:
    """Raise `Diverged` where the gradient norm or the loss of update `t` is not finite."""
    if not math.isfinite(norm) or not math.isfinite(loss or 0.0):
        found = f"gradient norm {norm}" if loss is None else f"loss {loss} and gradient norm {norm}"
        raise Diverged(
            f"update {t} has {found}: the run stops, and its checkpoints are from before this update. "
            "Lower optimizer.lr, lengthen the warm-up, or set trainer.clip."
        )
