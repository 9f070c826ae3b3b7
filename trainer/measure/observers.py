"""What a run measures of its micro-batches as it goes on: AdaScale's gain, and the noise scale."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from trainer.engine.clock import Clock
from trainer.engine.lr_control import LRControl
from trainer.engine.train_spec import TrainSpec
from trainer.engine.update import MicroBatch, Observer
from trainer.log.metric_buffer import Observation
from trainer.measure.adascale import Pace
from trainer.measure.micro_gradients import MicroGradients
from trainer.measure.noise_scale import NoiseScale

FEWEST = 6
"""Updates that an interval needs: Student's half-width is not good below 5 degrees of freedom."""


class LiveNoise:
    """Logs B_simple of all parameters and of each group, with its interval, where |G|² is resolved.

    Numerator and denominator are exponential means with `decay`. The interval takes the updates for independent.
    Nothing waits for the device: the means go on when the journal is drained, update by update.
    """

    def __init__(self, names: Sequence[str], sizes: tuple[int, int], decay: float) -> None:
        self.names, self.small = list(names), sizes[0]
        self.scale = NoiseScale(*sizes, decay=decay)
        self.spread: MicroGradients | None = None

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """What is measured is the spread of the gradients, which has been taken."""

    def after(self, t: int) -> Observation | None:
        """The norms of update `t`, on the device."""
        assert self.spread is not None
        return Observation(self.spread.squares.flatten(), partial(self._named, self.small * self.spread.count))

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
        """Go on from a checkpoint, whose journal had been drained."""
        self.scale.load_state_dict(state)


class CompositeObserver:
    """Several observers as one: what they have seen of an update is put together."""

    def __init__(self, parts: Sequence[Observer]) -> None:
        self.parts = parts

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """Each looks."""
        for part in self.parts:
            part.before(t, update)

    def after(self, t: int) -> Observation | None:
        """All numbers in one vector."""
        seen = [one for part in self.parts if (one := part.after(t)) is not None]
        if len(seen) < 2:
            return seen[0] if seen else None
        device = max((one.numbers for one in seen), key=len).device
        cuts = list(pairwise(accumulate((len(one.numbers) for one in seen), initial=0)))
        return Observation(torch.cat([one.numbers.to(device) for one in seen]), partial(_split, seen, cuts))


def _split(seen: list[Observation], cuts: list[tuple[int, int]], numbers: list[float]) -> dict[str, float]:
    named: dict[str, float] = {}
    for one, (first, stop) in zip(seen, cuts):
        named |= one.named(numbers[first:stop])
    return named


class Live:
    """AdaScale's pace and the noise scale of a run, as far as its recipe asks for them; their state is kept."""

    def __init__(self, recipe: TrainSpec, clock: Clock, control: LRControl) -> None:
        sizes = (recipe.micro_batch, recipe.horizon.batch_size)
        self.pace = Pace(recipe.adascale, sizes, clock, control) if recipe.adascale is not None else None
        names = ["all", *(group.name for group in recipe.groups)]
        self.noise = LiveNoise(names, sizes, recipe.noise_decay) if recipe.noise_decay is not None else None

    def measures(self, optimizer: Optimizer, model: nn.Module | None) -> MicroGradients | None:
        """What measures the micro-batches of updates by `optimizer`; None where nothing asks for it."""
        if self.noise is None and (self.pace is None or self.pace.scale is None):
            return None
        ddp = model if isinstance(model, DistributedDataParallel) else None
        spread = MicroGradients([group["params"] for group in optimizer.param_groups], ddp)
        for part in (self.noise, self.pace):
            if part is not None:
                part.spread = spread
        return spread

    def joined(self, observer: Observer | None) -> Observer | None:
        """`observer` and those of this run as one, the gain last; None where there is none."""
        parts = [part for part in (observer, self.noise, self.pace) if part is not None]
        return CompositeObserver(parts) if len(parts) > 1 else parts[0] if parts else None

    def state_dict(self) -> dict[str, Any]:
        """The state of both, None where there is none."""
        return {name: part and part.state_dict() for name, part in (("pace", self.pace), ("noise", self.noise))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with what was kept."""
        for name, part in (("pace", self.pace), ("noise", self.noise)):
            if part is not None and state.get(name) is not None:
                part.load_state_dict(state[name])
