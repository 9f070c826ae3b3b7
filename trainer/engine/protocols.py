"""The protocols of objects that the engine is given: micro-batches and observers of updates."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer

from trainer.engine.clock import Clock
from trainer.engine.lr_control import LRControl
from trainer.engine.step import Step
from trainer.log.metric_buffer import Observation


class MicroBatch(Protocol):
    """The batch of one forward pass, as a step takes it, and the seed of everything random in it."""

    batch: Any
    seed: int


class Observer(Protocol):
    """Measures an update just before and just after its step, and keeps the numbers on the device."""

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """Called when the gradients of update `t`, from these micro-batches, are ready and its rates are written."""

    def after(self, t: int) -> Observation | None:
        """Called when update `t` has been applied."""


class MakeObserver(Protocol):
    """Makes an observer of the updates of `net` by `optimizer`."""

    def __call__(self, net: nn.Module, step: Step, optimizer: Optimizer) -> Observer:
        """The observer of one run."""


class GradientRecorder(Protocol):
    """Records the gradients of each micro-batch. What the optimizer gets has the same bits with and without it."""

    def take(self, number: int, of: int) -> None:
        """Called after the backward pass of micro-batch `number` (1, …, `of`), with its loss divided by `of`."""


class RunObservers(Protocol):
    """All observers of one run, and their state in the checkpoint."""

    def begin(self, net: nn.Module, step: Step, optimizer: Optimizer, wrapped: nn.Module | None) -> None:
        """Called at the start of the run; `wrapped` is the net as the strategy wraps it to exchange gradients."""

    def with_probe(self, probe: MakeObserver | None) -> "RunObservers":
        """The same observers, with `probe`'s in place of norms and sharpness; for tools."""

    @property
    def observer(self) -> Observer | None:
        """All observers as one; None where there is none."""

    @property
    def micro_gradients(self) -> GradientRecorder | None:
        """Records the gradients of micro-batches; None where no observer needs them."""

    def state_dict(self) -> dict[str, Any]:
        """The state of all observers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""


class MakeRunObservers(Protocol):
    """Makes the observers of a run with this clock; they may set the gain of `control`."""

    def __call__(self, clock: Clock, control: LRControl) -> RunObservers:
        """The observers of one run."""
