"""Averages of the weights: taking them while training, scoring with them, and BatchNorm's statistics for them."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from trainer.engine.clock import Clock
from trainer.lr import ConfigError, Duration, Horizon
from trainer.lr.bounds import integer, number
from trainer.lr.growth import STEADY, Growth
from trainer.lr.scaling_average import scaled_decay
from trainer.optim.frozen import has_fixed_statistics
from trainer.optim.shards import local, shard

_BATCHES = (
    "it is how many training batches recompute BatchNorm's statistics for averaged weights; 0 keeps the old ones."
)


@dataclass(frozen=True)
class Average:
    """Which weights are averaged: those after `start`, `start + every`, … updates.

    The first weights start the average; the k-th after them make it a ← keep(k) a + (1 - keep(k)) w, k = 1, 2, ….
    With `keep` None there is no average but the optimizer's own, if it has one. `recalibrate` training batches give
    the running statistics of BatchNorm at the averaged weights. Where the batch grows by `growth`, `start` and `every`
    count updates of the first batch. One update may then reach several of these points, and its weights count once for
    each, so that the average spans the same samples.
    """

    kind: str
    recalibrate: int
    keep: Callable[[int], float] | None = None
    start: int = 0
    every: int = 1
    growth: Growth = STEADY

    def __post_init__(self) -> None:
        integer("average.recalibrate", self.recalibrate, _BATCHES, low=0)

    def times(self, updates: int) -> int:
        """How often the weights after `updates` updates count in the average: 0 where they are not averaged."""
        before, now = (max(-1, (self.growth.at(t) - self.start) // self.every) for t in (updates - 1, updates))
        return now - before


NONE = Average("none", 0)


def no_average(horizon: Horizon, *, recalibrate: int = 10) -> Average:
    """No average, except that of an optimizer that averages its weights itself."""
    return Average("none", recalibrate)


def ema(
    horizon: Horizon,
    *,
    decay: float = 0.999,
    start: Duration = "0%",
    every: Duration = 1,
    warmup: bool = True,
    recalibrate: int = 10,
    scaled: bool = False,
    base_batch_size: int | None = None,
) -> Average:
    """An exponential moving average of the weights: a ← d a + (1 - d) w.

    d is `decay`, or min(decay, (1 + k) / (10 + k)) with `warmup`, for the k-th weights after the first.
    Polyak & Juditsky 1992; the ramp as in TensorFlow's ExponentialMovingAverage.

    With `scaled`, `decay` is for updates at `base_batch_size`, and `scaled_decay` adapts it to the batch of the run.
    """
    why = "it is the share of the average that is kept, from 0 to below 1."
    most = number("average.decay", decay, why, 0.0, math.nextafter(1.0, 0.0))
    if scaled:
        most = scaled_decay(most, horizon.batch_size, base_batch_size, every)
    begin, step = _when(horizon, start, every)
    ramp = (lambda k: min(most, (1 + k) / (10 + k))) if warmup else (lambda k: most)
    return Average("ema", recalibrate, ramp, begin, step)


def swa(horizon: Horizon, *, start: Duration = "75%", every: Duration = "1ep", recalibrate: int = 10) -> Average:
    """Stochastic weight averaging: the plain mean of the weights. Izmailov et al. 2018, arXiv:1803.05407."""
    begin, step = _when(horizon, start, every)
    return Average("swa", recalibrate, lambda k: k / (k + 1), begin, step)


def _when(horizon: Horizon, start: Duration, every: Duration) -> tuple[int, int]:
    """The update after which weights are first averaged, and the updates from one average to the next."""
    begin, step = horizon.updates(start, "average.start"), horizon.updates(every, "average.every", least=1)
    count = len(range(begin or step, horizon.total + 1, step))
    if count < 2:
        raise ConfigError(
            f"average.start={start} and average.every={every} average the weights after {count} of {horizon.total} "
            "updates, and an average needs two: lower them."
        )
    return begin, step


def averages(optimizer: Optimizer) -> bool:
    """Whether an optimizer averages the weights itself, and has `train` and `eval` to switch between the two."""
    parts = getattr(optimizer, "parts", None)
    if parts is not None:
        return any(averages(part) for part in parts)
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


class Averaging:
    """Averages the weights of `net`, and puts the averaged weights into the net for scoring.

    The average may be the optimizer's own. `swap_in` copies the training weights to `held`, `swap_out` copies them
    back, so that scoring changes no bit of the training. A checkpoint written between the two has both.
    """

    def __init__(self, net: nn.Module, average: Average) -> None:
        self.net, self.average = net, average
        self.count = 0
        self.mean: dict[str, Tensor] = {}
        self.held: dict[str, Tensor] = {}
        self._weights: dict[str, nn.Parameter] = {}
        self._optimizer: Optimizer | None = None

    def begin(self, optimizer: Optimizer) -> None:
        """Begin training; restores the training weights where a checkpoint was written between swap_in and swap_out."""
        self._weights = {name: weight for name, weight in self.net.named_parameters() if weight.requires_grad}
        if averages(optimizer):
            self._optimizer = optimizer
            optimizer.train()  # type: ignore[attr-defined]
        self._put(self.held)
        self.held = {}
        mean = {name: value.to(self._weights[name].device) for name, value in self.mean.items()}
        self.mean = {name: shard(value, like=self._weights[name]) for name, value in mean.items()}

    def take(self, updates: int) -> None:
        """Add the weights after `updates` updates to the average, if they belong to it."""
        keep = self.average.keep
        if keep is None or not (times := self.average.times(updates)):
            return
        with torch.no_grad():
            weights = [_wide(weight) for weight in self._weights.values()]
            if not self.count:
                self.mean = {name: weight.clone() for name, weight in zip(self._weights, weights)}
            else:
                kept = math.prod(keep(k) for k in range(self.count, self.count + times))
                means = [local(self.mean[name]) for name in self._weights]
                torch._foreach_lerp_(means, [local(weight) for weight in weights], 1.0 - kept)
        self.count += times

    @property
    def due(self) -> bool:
        """Whether averaged weights are scored in place of the training weights."""
        return bool(self.mean) or self._optimizer is not None

    def swap_in(self, batches: Iterable[Any], forward: Callable[[Any], Any]) -> None:
        """Put the averaged weights into the net; `forward` runs it on training `batches`, for BatchNorm."""
        if self.held or not self.due:
            return
        norms = batch_norms(self.net) if self.average.recalibrate else []
        statistics = {f"{name}.{key}".lstrip("."): value for name, norm in norms for key, value in norm.named_buffers()}
        self.held = {name: value.detach().clone() for name, value in {**self._weights, **statistics}.items()}
        if self._optimizer is not None:
            self._optimizer.eval()  # type: ignore[attr-defined]
        self._put(self.mean)
        if norms:
            recalibrate(self.net, batches, forward)

    def swap_out(self) -> None:
        """Put the training weights back into the net."""
        if self.held and self._optimizer is not None:
            self._optimizer.train()  # type: ignore[attr-defined]
        self._put(self.held)
        self.held = {}

    def state_dict(self) -> dict[str, Any]:
        """The average, and the training weights while averaged ones are in the net."""
        return {"kind": self.average.kind, "count": self.count, "mean": self.mean, "held": self.held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state; an average of another kind starts anew."""
        self.held = state["held"]
        if state["kind"] == self.average.kind:
            self.count, self.mean = state["count"], state["mean"]

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        """Copy values into the parameters and buffers with these names."""
        if values:
            tensors = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
            for name, value in values.items():
                tensors[name].copy_(shard(value, like=tensors[name]))


def _wide(weight: nn.Parameter) -> Tensor:
    """A weight in at least float32, so that small steps of an average are not lost."""
    return weight.detach().float() if weight.dtype in (torch.float16, torch.bfloat16) else weight.detach()


def batch_norms(net: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """The modules of `net` whose running statistics follow the training, by name."""
    found = [(name, module) for name, module in net.named_modules() if isinstance(module, _BatchNorm)]
    return [(name, norm) for name, norm in found if norm.running_mean is not None and not has_fixed_statistics(norm)]


@torch.no_grad()
def recalibrate(net: nn.Module, batches: Iterable[Any], forward: Callable[[Any], Any]) -> None:
    """Set the running statistics to their plain means over `batches`, on each of which `forward` runs the net.

    Only the norms are in training mode, so there is no dropout, as in scoring.
    Izmailov et al. 2018, arXiv:1803.05407, sec. 3.2.
    """
    norms = [norm for _, norm in batch_norms(net)]
    modes, momenta = [(module, module.training) for module in net.modules()], [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    for batch in batches:
        forward(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    for module, mode in modes:
        module.training = mode


def recent(loader: Any, clock: Clock, count: int, micro_batches: Callable[[int], int]) -> Iterator[Any]:
    """The batches of `count` micro-batches of the updates just before the one that `clock` shows.

    `micro_batches(t)` is the number that update t has. The clock is set back meanwhile, and `loader` follows it: its
    batches are a function of the seed and the update, so that a resumed run gets the same ones.
    """
    now, there = clock.t, 0
    try:
        while there < count and clock.t:
            clock.t -= 1
            there += micro_batches(clock.t)
        while count and clock.t < now:
            began = clock.t
            for update in itertools.chain.from_iterable(loader):
                for micro in update[:count]:
                    yield micro.batch
                count, clock.t = count - len(update[:count]), clock.t + 1
                if not count or clock.t == now:
                    return
            assert clock.t > began, "the loader does not follow the clock"
    finally:
        clock.t = now
