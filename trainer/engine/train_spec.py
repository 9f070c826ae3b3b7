"""What a net is trained by, in one place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from torch.optim import Optimizer

from trainer.engine.attribute_setters import GradientNoise
from trainer.engine.averaging import NONE, Average
from trainer.engine.update import Observer
from trainer.lr import Horizon, LRPolicy
from trainer.measure.adascale import AdaScale
from trainer.optim.groups import Group


@dataclass(frozen=True)
class TrainSpec:
    """How a net is trained: the curve, its length, what steps, what is done to gradients, what is averaged and logged.

    `micro_batch` are the samples of one on one device; with `noise_decay` the noise scale is logged. `origin` is kept
    in each checkpoint: the config, and where the curve comes from.
    """

    policy: LRPolicy
    horizon: Horizon
    optimizer: Callable[[], Optimizer]
    groups: Sequence[Group]
    clip: float | None = None
    log_every: int = 50
    noise: GradientNoise | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    observe: Callable[..., Observer] | None = None
    agc: float | None = None
    sam: float | None = None
    average: Average = NONE
    accumulate: int = 1
    micro_batch: int = 1
    adascale: AdaScale | None = None
    noise_decay: float | None = None

    def micro_batches(self, t: int) -> int:
        """The micro-batches of update `t` in each process."""
        return self.accumulate * self.horizon.growth.ratio(t)

    def mean_batch(self, updates: Sequence[int]) -> float:
        """The mean number of samples in these updates."""
        return fmean(map(self.horizon.batch, updates))

    def check_batch(self, t: int, update: Sequence[Any]) -> None:
        """RuntimeError where the data gives update `t` another batch than is planned."""
        if len(update) != self.micro_batches(t):
            raise RuntimeError(f"update {t} has {len(update)} micro-batches where {self.micro_batches(t)} are planned.")


@dataclass(frozen=True)
class Loop:
    """How a run asks its data for batches; `data.stream.Loop` has the same fields, and says what they mean."""

    total: int
    validation_interval: int | Callable[[int], int]
    pauses: tuple[int | Callable[[int], int], ...] = ()
    steps_per_execution: int = 1
    accumulate: int = 1
    stages: Sequence[tuple[int, int]] = ((0, 1),)
