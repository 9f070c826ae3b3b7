"""How a net is trained, in one frozen value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from torch.optim import Optimizer

from trainer.engine.averaging import NONE, Average
from trainer.engine.gradient_treatment import GradientTreatment
from trainer.engine.protocols import MakeRunObservers
from trainer.lr import Horizon, LRPolicy
from trainer.lr.guard import Stop
from trainer.optim.groups import Group


@dataclass(frozen=True)
class TrainSpec:
    """The policy and length of a run, its optimizer, and its treatment of gradients, averaging, observers and logging.

    Each micro-batch has `micro_batch` samples on one device. With `cuda_graph` updates are recorded and replayed.
    `origin`, the config and the history of the curve, is stored in each checkpoint.
    """

    policy: LRPolicy
    horizon: Horizon
    optimizer: Callable[[], Optimizer]
    groups: Sequence[Group]
    observers: MakeRunObservers
    gradients: GradientTreatment = GradientTreatment()
    average: Average = NONE
    accumulate: int = 1
    micro_batch: int = 1
    log_every: int = 50
    guard: Stop = Stop()
    cuda_graph: bool = False
    origin: dict[str, Any] = field(default_factory=dict)

    def micro_batches(self, t: int) -> int:
        """The micro-batches of update `t` in each process."""
        return self.accumulate * self.horizon.growth.ratio(t)

    def mean_batch(self, updates: Sequence[int]) -> float:
        """The mean number of samples in these updates."""
        return fmean(map(self.horizon.batch, updates))

    def check_batch(self, t: int, update: Sequence[Any]) -> None:
        """RuntimeError where the data gives update `t` another number of micro-batches than planned."""
        if len(update) != self.micro_batches(t):
            raise RuntimeError(f"update {t} has {len(update)} micro-batches where {self.micro_batches(t)} are planned.")


@dataclass(frozen=True)
class Loop:
    """How a run asks its data for batches; `data.stream.Loop` has the same fields and describes them."""

    total: int
    validation_interval: int | Callable[[int], int]
    pauses: tuple[int | Callable[[int], int], ...] = ()
    steps_per_execution: int = 1
    longest: int | None = None
    accumulate: int = 1
    stages: Sequence[tuple[int, int]] = ((0, 1),)
    left_out: Sequence[int] = ()
    repeated: int | None = None
    whole: bool = False
