"""Trains a run for a few updates while one of its numbers rises, and restores it afterwards."""

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.config.components import Parts
from trainer.config.lr_policy import group_settings
from trainer.engine.averaging import NONE, Averaging
from trainer.engine.lr_control import LRControl, attribute_setters
from trainer.engine.step import StepOutput
from trainer.engine.train_spec import Loop
from trainer.engine.update import Diverged
from trainer.log.metric_buffer import MetricBuffer
from trainer.lr import ConfigError, HyperSchedule, LRPolicy, Warmup
from trainer.lr.growth import STEADY
from trainer.lr.range_test import Stop, Sweep

Measure = Callable[[Tensor], float]


def sweep(parts: Parts, of: str, values: Sequence[float], measured: str = "train", samples: int = 512) -> Sweep:
    """Train one update at each of `values` with the run's own updates, at its first batch size; the losses by value.

    `measured` is "train" for the loss of the update's own batch just before its step, "val" for that of the first
    `samples` validation samples just after it, and "score" for the accuracy on those (see `scored_by`).
    """
    module, trainer = parts.module, parts.trainer
    with untouched(parts):
        policy = sweep_policy(parts, of, values)
        measure = _measure(parts, measured, samples)
        tape = Tape(trainer, measure, Stop() if measured != "score" else math.isnan)
        module.horizon = replace(module.horizon, total=len(values), growth=STEADY)
        module.spec = replace(module.spec, policy=policy, average=NONE, horizon=module.horizon)
        module.control = LRControl(policy, attribute_setters(policy, module.net, module.step))
        module.observers = module.observers.with_probe(None)
        module.averaging, module.metric_buffer, module.clock.t = Averaging(module.net, NONE), tape, 0
        accumulate = module.spec.accumulate
        parts.data.follow(
            lambda: module.clock.t,
            Loop(total=len(values), validation_interval=len(values), accumulate=accumulate),
        )
        with gradients_seen(module.net) as unseen:
            try:
                trainer.fit(module, datamodule=parts.data)
            except Diverged:
                tape.broke = len(tape.losses)
        module.control.reset()
        seen = len(tape.losses)
        broke = None if tape.broke is None else values[tape.broke]
    dead = tuple(unseen)
    if dead and len(dead) == len([weight for weight in module.net.parameters() if weight.requires_grad]):
        raise ConfigError(
            f"every gradient is exactly 0 in all {seen} updates of the sweep: the net cannot learn. The loss does not "
            "depend on the weights, as with dead units, a detached output or a constant loss."
        )
    return Sweep(list(values[:seen]), tape.losses, broke, parts.resolved.settings.seed, len(values), dead)


@contextmanager
def gradients_seen(net: torch.nn.Module) -> Iterator[list[str]]:
    """The names of the trained weights whose gradient has been 0 in every update so far."""
    unseen: list[str] = []
    hooks: dict[str, Any] = {}

    def look(name: str, weight: Tensor) -> None:
        if name in unseen and bool(weight.grad.any()):  # type: ignore[union-attr]
            unseen.remove(name)
            hooks.pop(name).remove()

    for name, weight in net.named_parameters():
        if weight.requires_grad:
            unseen.append(name)
            hooks[name] = weight.register_post_accumulate_grad_hook(partial(look, name))
    try:
        yield unseen
    finally:
        for hook in hooks.values():
            hook.remove()


def sweep_policy(parts: Parts, of: str, values: Sequence[float]) -> LRPolicy:
    """The policy of a sweep: `of` takes these values, the ratios of groups stay, all else is as at the peak.

    The rates are those of a group with multiplier 1. Scheduled settings keep their value of the end of the warm-up.
    """
    planned, resolved = parts.resolved.plan.policy, parts.resolved
    peak = min(max(planned.warmup.updates - 1, 0), parts.module.horizon.total - 1)
    held = {name: _held(schedule, peak) for name, schedule in planned.hyper_schedules.items()}
    if of == "lr":
        return LRPolicy(1.0, 1.0, Warmup(0, lambda t: 1.0), lambda t: values[t], planned.groups, hyper_schedules=held)
    bases = [group.get(of) for group in group_settings(resolved.numbers.curve, resolved.groups).values()]
    if any(base is None for base in bases) or not any(bases):
        raise ConfigError(f"--of={of}: optimizer.{of} is not set above zero here: set it, or choose another optimizer.")
    top = max(base for base in bases if base is not None)
    held[of] = HyperSchedule(lambda t, base, share: values[t] * base / top, [float(base or 0.0) for base in bases])
    return LRPolicy(planned.peak_lr, 1.0, Warmup(0, lambda t: 1.0), lambda t: 1.0, planned.groups, hyper_schedules=held)


def _held(schedule: HyperSchedule, peak: int) -> HyperSchedule:
    """The same setting, constant at its value of update `peak`."""
    return HyperSchedule(lambda t, base, share: schedule.rule(peak, base, 1.0), schedule.bases)


def scored_by(parts: Parts) -> tuple[str, float]:
    """The name of the score, which is the accuracy or else the task's monitor, and its sign, -1 where low is good."""
    scores: Any = parts.module.scores["val"]
    if "accuracy" in scores.names:
        return "accuracy", 1.0
    return parts.checkpointing.monitor.removeprefix("val/"), 1.0 if parts.checkpointing.mode == "max" else -1.0


class Tape(MetricBuffer):
    """A metric buffer that keeps what the sweep measures of each update, logs nothing, and stops a sweep that breaks.

    `broke` is the update at which it did: the first whose loss was too high, or whose loss or gradient was not finite.
    """

    def __init__(self, trainer: Any, measure: Measure, stop: Callable[[float], bool]) -> None:
        super().__init__()
        self.trainer, self.measure, self.stop = trainer, measure, stop
        self.losses: list[float] = []
        self.broke: int | None = None

    def __len__(self) -> int:
        return 0

    def add(self, t: int, loss: Tensor, grad_norm: Tensor, with_: Any, *observed: Any, **logged: Any) -> None:
        """Measure update `t`. Gradients that are not finite are not applied, and break the sweep."""
        value = self.measure(loss) if math.isfinite(grad_norm.item()) else math.nan
        if math.isnan(value) or self.stop(value):
            self.broke, self.trainer.should_stop = len(self.losses), True
        if not math.isnan(value):
            self.losses.append(value)


def _measure(parts: Parts, measured: str, samples: int) -> Measure:
    if measured == "train":
        return lambda loss: loss.item()
    source: Any = parts.data.splits.val
    if source is None:
        target = parts.resolved.settings.data["_target_"]
        raise ConfigError(f"--loss={measured}: {target} has no validation data: take --loss train.")
    held_out = HeldOut(parts, min(samples, len(source)))
    return held_out.loss if measured == "val" else held_out.score


@dataclass
class HeldOut:
    """The first validation samples, scored after each update in evaluation mode."""

    parts: Parts
    count: int
    batch: Any = None

    @torch.no_grad()
    def loss(self, ignored: Tensor | None = None) -> float:
        """The mean loss."""
        return self._output().loss.item()

    @torch.no_grad()
    def score(self, ignored: Tensor | None = None) -> float:
        """What `scored_by` names, with the sign of its mode."""
        name, sign = scored_by(self.parts)
        scores: Any = self.parts.module.scores["val"]
        scores.update(self._output(scored=True), self.batch)
        return sign * scores.compute()[name]

    def _output(self, scored: bool = False) -> StepOutput:
        module, precision = self.parts.module, self.parts.trainer.precision_plugin
        if self.batch is None:
            data: Any = self.parts.data
            self.batch = data.validation_samples(self.count)
        modes = [(part, part.training) for part in module.net.modules()]
        module.net.eval()
        with precision.forward_context():
            batch = precision.convert_input(self.batch)
            output = module.hooks.score("val", batch, 0, module.run_step) if scored else module.run_step(batch)
        for part, mode in modes:
            part.training = mode
        return output


def fingerprint(parts: Parts) -> str:
    """SHA-256 of all that a sweep must not change.

    Weights, buffers and gradients, what is trained and in which mode, the clock, the average, the data in memory, all
    random generators, and every file in the run's folder.
    """
    digest = hashlib.sha256()
    module = parts.module
    for name, value in _tensors(parts):
        _add(digest, name, value)
    for name, part in module.net.named_modules():
        digest.update(f"{name} {part.training}".encode())
    digest.update(f"{module.clock.t} {module.averaging.count} {len(module.metric_buffer)}".encode())
    for generator in _generators():
        _add(digest, "generator", generator)
    digest.update(repr(random.getstate()).encode() + repr(np.random.get_state()).encode())  # noqa: NPY002 - the global one
    for path in sorted(parts.folder.rglob("*")):
        digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


@contextmanager
def untouched(parts: Parts) -> Iterator[None]:
    """Afterwards restore weights, buffers, gradients, modes, parts of the module and random state."""
    module: Any = parts.module
    net, data = module.net, parts.data
    follows = {name: value for name, value in vars(data).items() if name in ("_clock", "_loop")}
    kept = [(value, value.detach().clone()) for _, value in _weights(net)]
    grads = [(weight, weight.grad) for weight in net.parameters()]
    modes = [(part, part.training) for part in net.modules()]
    names = ("spec", "horizon", "control", "averaging", "metric_buffer", "observers")
    pieces = {name: getattr(module, name) for name in names}
    t, states = module.clock.t, (random.getstate(), np.random.get_state())  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        with torch.no_grad():
            for value, before in kept:
                value.copy_(before)
        for weight, grad in grads:
            weight.grad = grad
        for part, mode in modes:
            part.training = mode
        for name, value in pieces.items():
            setattr(module, name, value)
        module.clock.t = t
        vars(data).update(follows)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _weights(net: torch.nn.Module) -> list[tuple[str, Tensor]]:
    return [*net.named_parameters(), *net.named_buffers()]


def _tensors(parts: Parts) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the state by name; data that workers read from files is not in memory."""
    net = parts.module.net
    yield from _weights(net)
    for name, weight in net.named_parameters():
        yield f"{name} {weight.requires_grad}", weight if weight.grad is None else weight.grad
    yield from parts.module.averaging.mean.items()
    for use in ("train", "val", "test"):
        source = getattr(parts.data.splits, use)
        for name in ("inputs", "targets"):
            if isinstance(value := getattr(source, name, None), Tensor):
                yield f"{use} {name}", value


def _generators() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count()))]


def _add(digest: Any, name: str, value: Tensor) -> None:
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
