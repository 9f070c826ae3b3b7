"""One optimizer update, from micro-batches to the step."""

import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.autograd import Variable
from torch.autograd.graph import _engine_run_backward
from torch.optim import Optimizer

from trainer.engine.averaging import Averaging
from trainer.engine.clock import Clock
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.engine.guard import Diverged, Guard, check_finite
from trainer.engine.losses import combined
from trainer.engine.lr_control import LRControl
from trainer.engine.protocols import GradientRecorder, MicroBatch, Observer
from trainer.engine.run_hooks import RunHooks
from trainer.engine.step import Step, StepOutput, as_weight, check_output, weighted
from trainer.log.metric_buffer import RESERVED, MetricBuffer
from trainer.lr import ConfigError
from trainer.lr.guard import Stop
from trainer.optim.fused_step import FusedStep
from trainer.optim.shards import local

Weight = Tensor | float | None
Logs = Mapping[str, Tensor]
Named = Mapping[str, Tensor | float]
Shares = Sequence[Tensor] | None
_ONES: dict[torch.dtype, Tensor] = {}
_PLAIN = nullcontext()


@dataclass(frozen=True)
class Backward:
    """How gradients are made on this machine: precision, loss scaling, and when `world` processes average them."""

    device: torch.device
    before_backward: Callable[[Tensor], Any] | None = None
    no_sync: Callable[[], AbstractContextManager] = nullcontext
    scaler: GradScaler | None = None
    autocast: bool = False
    world: int = 1
    after_backward: Callable[[Tensor], Any] | None = None

    @classmethod
    def of(cls, trainer: pl.Trainer, device: torch.device) -> "Backward":
        """From Lightning's trainer."""
        strategy, precision = trainer.strategy, trainer.precision_plugin
        scaler = precision.scaler if isinstance(precision, MixedPrecision) else None
        mixed = isinstance(precision, MixedPrecision)
        if not isinstance(strategy, DDPStrategy):
            return cls(device, scaler=scaler, autocast=mixed)
        before, after, no_sync = strategy.pre_backward, strategy.post_backward, strategy.block_backward_sync
        return cls(device, before, no_sync, scaler, mixed, strategy.world_size, after)

    def __call__(self, loss: Tensor) -> None:
        """Add the gradients of `loss` to the parameters."""
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        if self.before_backward is not None:
            self.before_backward(loss)
        _differentiate(loss)
        if self.after_backward is not None:
            self.after_backward(loss)

    def full_precision(self) -> AbstractContextManager:
        """Switches autocast off: it is for the forward pass only."""
        return torch.autocast(self.device.type, enabled=False) if self.autocast else _PLAIN

    def common_loss(self, own: Tensor) -> float:
        """The mean of a loss over all processes."""
        return (self.over_ranks(own.clone()) / self.world).item() if self.world > 1 else own.item()

    def over_ranks(self, own: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            torch.distributed.all_reduce(own)
        return own

    def reseed(self, seed: int, of_torch: bool = False) -> None:
        """Seed the generators, so that dropout and the draws of a step are functions of the update.

        `of_torch`: those of torch alone, which takes a fifth of the time.
        """
        if not of_torch:
            np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
            random.seed(seed)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(seed)


def _differentiate(loss: Tensor) -> None:
    """`loss.backward()`, for a plain scalar without checks of arguments that take a third of a tiny net's pass.

    A pass on the CPU alone stays in this thread, so that it needs no copy of the context for threads of devices.
    """
    if type(loss) is not Tensor or loss.ndim or not loss.requires_grad:
        loss.backward()
        return
    run = Variable._execution_engine.run_backward if loss.is_cpu else _engine_run_backward
    run((loss,), (_one_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True)


def _one_like(loss: Tensor) -> Tensor:
    """The gradient of a loss by itself; on the CPU the one of before, where no hook has changed it."""
    if not loss.is_cpu:
        return torch.ones_like(loss)
    one = _ONES.get(loss.dtype)
    if one is None or one._version:
        one = _ONES[loss.dtype] = torch.ones_like(loss)
    return one


def draw_from_torch(*parts: object) -> bool:
    """Whether modules and functions are known to draw random numbers from torch alone.

    Known are those of torch, ours, and those of a file that says it by `DRAWS_FROM_TORCH_ALONE = True`.
    """
    every = [one for part in parts for one in (part.modules() if isinstance(part, nn.Module) else [part])]
    homes = {getattr(one, "__module__", "") for one in every}  # of an instance, that of its class
    return all(
        f"{home}.".startswith(("torch.", "trainer.")) or getattr(sys.modules.get(home), "DRAWS_FROM_TORCH_ALONE", False)
        for home in homes
    )


@dataclass
class Updater:
    """Step, backward, treat gradients, write the learning rate, finite check, optimizer step, advance clock, average.

    The clock advances if and only if the update was applied. An update that loss scaling skips is repeated, on the
    same data at the same rate, with a lower scale. Where a fused optimizer on a GPU skips updates that are not finite,
    nothing waits for the check: the weights stay, and the run stops when the metrics are next flushed. A guard that
    skips waits for each update, and leaves an offending one out: weights, buffers and all state stay, and so does `t`.
    """

    net: nn.Module
    step: Step
    optimizer: Optimizer
    control: LRControl
    clock: Clock
    metric_buffer: MetricBuffer
    backward: Backward
    treatment: GradientTreatment = GradientTreatment()
    averaging: Averaging | None = None
    observer: Observer | None = None
    micro_gradients: GradientRecorder | None = None
    hooks: RunHooks = RunHooks()
    guard: Guard = field(default_factory=lambda: Guard(Stop(), Clock()))
    tries = 40

    def __post_init__(self) -> None:
        self.groups = [list(group["params"]) for group in self.optimizer.param_groups]
        self.parameters = [parameter for group in self.groups for parameter in group]
        self.weight_of: Callable[[Any], Weight] | None = getattr(self.step, "weight_of", None)
        self.make_step = FusedStep(self.optimizer)
        skips_nonfinite = all(group.get("fused") for group in self.optimizer.param_groups)
        self.of_torch = draw_from_torch(self.net, self.step, getattr(self.step, "loss", self.step))
        self.checks_each = self.backward.device.type == "cpu" or not skips_nonfinite

    def __call__(self, update: Sequence[MicroBatch]) -> bool:
        """Apply one update made of the micro-batches of `update`; False where the guard leaves it out.

        Raises `Diverged` where it is not finite, and the guard does not skip.
        """
        if self.guard.skips:
            return self._made_or_skipped(update)
        self._made(update)
        return True

    def _made_or_skipped(self, update: Sequence[MicroBatch]) -> bool:
        """The same under a guard that skips."""
        scaler = self.backward.scaler
        scale = None if scaler is None else scaler.state_dict()
        self.guard.keep()
        if self._made(update):
            return True
        self.guard.restore()
        if scaler is not None and scale is not None:
            scaler.load_state_dict(scale)
        return False

    def _made(self, update: Sequence[MicroBatch]) -> bool:
        if self.control.policy.hyper_schedules:
            self.control.evaluate(self.clock.at)
        treatment = self.treatment.at(self.control.values)
        for _ in range(self.tries):
            loss, logs = treatment.make(self.net, self.parameters, lambda: self._gradients(update))
            with self.backward.full_precision():
                if self.backward.scaler is not None:
                    self.backward.scaler.unscale_(self.optimizer)
                self.hooks.before_step(self.optimizer)
                norm = treatment.apply(self.groups, self.clock.t)
                if self.guard.skips and self._offends(loss, norm):
                    if self.backward.scaler is not None:
                        self.backward.scaler.update()  # it forgets what it has found in this update
                    break
                self.control.write(self.optimizer, self.clock.at)
                if self.observer is not None:
                    self.observer.before(self.clock.t, update)
                applied = self._apply(loss, norm)
            self._clear()
            if applied:
                self.conclude(loss, norm, logs)
                return True
        self._clear()
        if self.guard.skips:
            return False
        t = self.clock.t
        raise Diverged(f"update {t}: the gradients overflow at every loss scale. Lower the learning rate.", t)

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def _offends(self, loss: Tensor, norm: Tensor) -> bool:
        """Whether the guard leaves this update out. An overflow under loss scaling is first tried at a lower scale."""
        size = norm.item()
        if self.backward.scaler is not None and not math.isfinite(size):
            gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            if not all(local(gradient).isfinite().all() for gradient in gradients):
                self.guard.reason = "gradients that overflow at every loss scale"
                return False
        return self.guard.offends(self.clock.t, self.backward.common_loss(loss), size)

    def _gradients(self, update: Sequence[MicroBatch]) -> tuple[Tensor, Logs]:
        """The mean loss and the mean logs of the update; leaves the gradients of the mean loss in the parameters.

        Gradients are exchanged on the last micro-batch. Weights that are known only after the forward passes multiply
        the losses, and the summed gradients are divided by their sum.
        """
        count = len(update)
        several = count * self.backward.world > 1
        shares = self._known_shares(update) if several and self.weight_of is not None else None
        given: list[tuple[Tensor, Weight, Named]] = []
        for i, micro in enumerate(update):
            self.backward.reseed(micro.seed, self.of_torch)
            with _PLAIN if i + 1 == count else self.backward.no_sync():
                loss, weight, logs = self._forward(self.hooks.begin_batch(i, micro.batch))
                if shares is not None:
                    part = weighted(loss / count, shares[i])
                elif weight is not None and several:
                    part = weighted(loss, as_weight(weight, loss.device))
                else:
                    part = loss / count if count > 1 else loss
                if part.ndim:
                    part = combined(part, self.step.loss_weights)  # type: ignore[attr-defined]
                with self.backward.full_precision():
                    self.hooks.before_backward(part)
                    self.backward(part)
                    self.hooks.after_backward()
            if self.micro_gradients is not None:
                self.micro_gradients.take(i + 1, of=count)
            if i + 1 < count:
                self.hooks.end_batch()
            given.append((loss.detach(), weight, logs))
        if not several and not logs and not loss.ndim:
            return given[0][0], {}
        losses, weights, named = zip(*given, strict=True)
        if shares is None and several and weights.count(None) < count:
            shares = self._shares(weights, scale=True)
        return self._means(losses, named, shares)

    def _means(self, losses: Sequence[Tensor], named: Sequence[Named], shares: Shares) -> tuple[Tensor, Logs]:
        """The mean loss and logs; several losses are logged by their names."""
        mean = _mean(losses, shares)
        if not mean.ndim:
            return mean, _mean_logs(named, shares, losses[0])
        loss_weights = self.step.loss_weights  # type: ignore[attr-defined]
        logs = {**_mean_logs(named, None, losses[0]), **dict(zip(loss_weights, mean.unbind()))}
        return combined(mean, loss_weights), logs

    def _forward(self, batch: Any) -> tuple[Tensor, Weight, Named]:
        """Losses, weights and logs of a micro-batch; its outputs are not kept, because they may be large."""
        output = self.step(self.net, batch, t=self.clock.t)
        if not isinstance(output, StepOutput):
            check_output(output)
        return output[:3] if output.parts is None else (output.parts, output.weight, output.logs)

    def _known_shares(self, update: Sequence[MicroBatch]) -> Sequence[Tensor] | None:
        """The shares of the micro-batches, where their weights are known before the forward pass."""
        assert self.weight_of is not None
        weights = [self.weight_of(micro.batch) for micro in update]
        return None if weights[0] is None else self._shares(weights)

    def _shares(self, weights: Sequence[Weight], scale: bool = False) -> Sequence[Tensor]:
        """Each weight over the mean weight of all micro-batches of all processes: 1 where all are equal.

        `scale`: also divide the gradients by the sum of the weights; processes have averaged them.
        """
        given = [as_weight(weight, self.backward.device) for weight in weights if weight is not None]
        if len(given) < len(weights):
            raise ConfigError(f"task.step gives a weight for some batches of update {self.clock.t}: give one for all.")
        own, world = torch.stack(given), self.backward.world
        if scale and own.ndim > 1:
            raise ConfigError("task.step gives several losses with weights: it needs a method weight_of(batch).")
        total = self.backward.over_ranks(own.sum() if own.ndim == 1 else own.sum(0))
        shares = own * (len(own) * world) / total
        if self.micro_gradients is not None and (scale or (shares - 1).abs().max() > 1e-6):
            raise ConfigError(
                f"update {self.clock.t} has micro-batches of unequal weight, and measure=noise and scaling=adascale "
                "compare micro-batches of equal weight: take measure=norms and another scaling, or a loss without "
                "weights."
            )
        if scale:
            gradients = [local(parameter.grad) for parameter in self.parameters if parameter.grad is not None]
            torch._foreach_mul_(gradients, (world / total).to(gradients[0].dtype))
        return shares.unbind()

    def _apply(self, loss: Tensor, norm: Tensor) -> bool:
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
        self.make_step()
        return True

    def conclude(self, loss: Tensor, norm: Tensor, logs: Logs) -> None:
        """Log the applied update, advance the clock, average the weights."""
        observation = self.observer.after(self.clock.t) if self.observer is not None else None
        logs = self.hooks.with_logs(logs, loss)
        self.metric_buffer.add(self.clock.t, loss, norm, self.control, observation, logs)
        self.clock.t += 1
        self.hooks.end_batch()
        if self.averaging is not None:
            self.averaging.take(self.clock.t)


def _mean(values: Sequence[Tensor], shares: Shares) -> Tensor:
    """The mean over the micro-batches of this process; the mean of all processes is then that over all of them."""
    if shares is not None:
        values = [weighted(value, share) for value, share in zip(values, shares, strict=True)]
    if len(values) == 1:
        return values[0]
    stacked = torch.stack(list(values))
    return stacked.mean() if stacked.ndim == 1 else stacked.mean(0)


def _mean_logs(logs: Sequence[Named], shares: Shares, like: Tensor) -> Logs:
    """The means by name, as scalars like `like`."""
    names = logs[0].keys()
    if not names:
        return {}
    if taken := names & RESERVED:
        raise ConfigError(f"task.step logs {', '.join(sorted(taken))}, which every run logs itself: give another name.")
    if any(row.keys() != names for row in logs):
        raise ConfigError(f"task.step logs {', '.join(sorted(names))} for one batch only: log them for all.")
    rows = [{name: torch.as_tensor(row[name]).detach().to(like) for name in names} for row in logs]
    return {name: _mean([row[name] for row in rows], shares) for name in names}
