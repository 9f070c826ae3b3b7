"""The observers of a run's updates: norms and sharpness, the noise scale, and the gain of AdaScale."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from trainer.engine.clock import Clock
from trainer.engine.lr_control import LRControl
from trainer.engine.protocols import MakeObserver, MicroBatch, Observer
from trainer.engine.step import Step
from trainer.log.metric_buffer import Observation
from trainer.measure.adascale import AdaScale, AdaScaleObserver
from trainer.measure.micro_gradients import MicroGradients
from trainer.measure.noise_scale import NoiseScale
from trainer.measure.norms import Measurement, NormObserver

FEWEST = 6
"""Updates that an interval needs: `student` is too narrow below 5 degrees of freedom."""


class NoiseObserver:
    """Logs B_simple of all parameters and of each group, with its interval, where |G|² is resolved.

    `sizes` are the samples of a micro-batch and of the whole batch. Numerator and denominator are exponential means
    with `decay`. The interval takes the updates as independent. Nothing waits for the device: the means are updated
    when the metrics are flushed.
    """

    def __init__(self, names: Sequence[str], sizes: tuple[int, int], decay: float) -> None:
        self.names, self.small = list(names), sizes[0]
        self.scale = NoiseScale(*sizes, decay=decay)
        self.micro_gradients: MicroGradients | None = None

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """Nothing: the norms of the micro-batches have been recorded."""

    def after(self, t: int) -> Observation | None:
        """The norms of update `t`, on the device."""
        assert self.micro_gradients is not None
        batch = self.small * self.micro_gradients.count
        return Observation(self.micro_gradients.squares.flatten(), partial(self._named, batch))

    def _named(self, batch: int, numbers: list[float]) -> dict[str, float]:
        small, big = torch.tensor(numbers, dtype=torch.float64).view(2, -1)
        self.scale.add(small, big, batch)
        if self.scale.count < FEWEST:
            return {}
        values: dict[str, float] = {}
        for name, found in zip(self.names, self.scale.estimates()):
            if found.noise is not None and found.low is not None and found.high is not None:
                ends = {f"noise_scale/{name}/low": found.low, f"noise_scale/{name}/high": found.high}
                values |= {f"noise_scale/{name}": found.noise, **ends}
        return values

    def state_dict(self) -> dict[str, Any]:
        """The means."""
        return self.scale.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint, which was written after a flush."""
        self.scale.load_state_dict(state)


class CompositeObserver:
    """Several observers as one: their observations of an update are joined."""

    def __init__(self, parts: Sequence[Observer]) -> None:
        self.parts = parts

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """Each looks at the update, in order."""
        for part in self.parts:
            part.before(t, update)

    def after(self, t: int) -> Observation | None:
        """All numbers in one vector."""
        observations = [one for part in self.parts if (one := part.after(t)) is not None]
        if len(observations) < 2:
            return observations[0] if observations else None
        device = max((one.numbers for one in observations), key=len).device
        cuts = list(pairwise(accumulate((len(one.numbers) for one in observations), initial=0)))
        numbers = torch.cat([one.numbers.to(device) for one in observations])
        return Observation(numbers, partial(_named, observations, cuts))


def _named(observations: list[Observation], cuts: list[tuple[int, int]], numbers: list[float]) -> dict[str, float]:
    values: dict[str, float] = {}
    for one, (first, stop) in zip(observations, cuts):
        values |= one.named(numbers[first:stop])
    return values


@dataclass(frozen=True)
class ObserverSpec:
    """What the observers of a run measure: a `measurement`, and AdaScale.

    `groups` are the names of the parameter groups; `micro_batch` and `batch` the samples of a micro-batch on one
    device and of a whole update.
    """

    groups: tuple[str, ...]
    micro_batch: int
    batch: int
    measurement: Measurement | None = None
    adascale: AdaScale | None = None

    def __call__(self, clock: Clock, control: LRControl) -> "Observers":
        """The observers of one run."""
        return Observers(self, clock, control)


class Observers:
    """The observers of one run. Call `begin` after the state of a checkpoint has been loaded.

    The norms of micro-batches are recorded where the noise scale is measured, or where AdaScale has a gain above 1.
    """

    def __init__(self, spec: ObserverSpec, clock: Clock, control: LRControl) -> None:
        sizes, measurement = (spec.micro_batch, spec.batch), spec.measurement
        self.probe: MakeObserver | None = None
        if measurement is not None and measurement.looks_at_weights:
            self.probe = partial(NormObserver, measurement)
        self.adascale = AdaScaleObserver(spec.adascale, sizes, clock, control) if spec.adascale is not None else None
        self.noise: NoiseObserver | None = None
        if measurement is not None and measurement.noise is not None:
            self.noise = NoiseObserver(["all", *spec.groups], sizes, measurement.noise)
        self.observer: Observer | None = None
        self.micro_gradients: MicroGradients | None = None

    def begin(self, net: nn.Module, step: Step, optimizer: Optimizer, wrapped: nn.Module | None) -> None:
        """Make the observers; AdaScale's comes last, because it sets the gain of the next update."""
        parts: list[Observer] = []
        if self.probe is not None:
            parts.append(self.probe(net, step, optimizer))
        parts += [part for part in (self.noise, self.adascale) if part is not None]
        self.observer = CompositeObserver(parts) if len(parts) > 1 else parts[0] if parts else None
        if self.noise is not None or (self.adascale is not None and self.adascale.scale is not None):
            ddp = wrapped if isinstance(wrapped, DistributedDataParallel) else None
            self.micro_gradients = MicroGradients([group["params"] for group in optimizer.param_groups], ddp)
            for part in (self.noise, self.adascale):
                if part is not None:
                    part.micro_gradients = self.micro_gradients

    def with_probe(self, probe: MakeObserver | None) -> "Observers":
        """The same, with the observer that `probe` makes in place of norms and sharpness; None for no such observer."""
        other = copy(self)
        other.probe = probe
        return other

    def state_dict(self) -> dict[str, Any]:
        """The state of AdaScale and of the noise scale, None where there is none."""
        return {name: part and part.state_dict() for name, part in (("adascale", self.adascale), ("noise", self.noise))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        for name, part in (("adascale", self.adascale), ("noise", self.noise)):
            if part is not None and state.get(name) is not None:
                part.load_state_dict(state[name])
