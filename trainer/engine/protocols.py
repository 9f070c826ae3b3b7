"""What the engine asks of the objects that are handed to it: micro-batches, and what observes an update."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.engine.clock import Clock
from trainer.engine.lr_control import LRControl
from trainer.log.metric_buffer import Observation

Loss = Callable[[Tensor, Tensor], Tensor]
"""loss(outputs, targets): the mean over the samples of a micro-batch, a scalar."""


class MicroBatch(Protocol):
    """Inputs and targets of one forward pass, and the seed of everything random in it."""

    inputs: Tensor
    targets: Tensor
    seed: int


class Observer(Protocol):
    """Looks at an update just before its step and just after it, and keeps numbers on the device."""

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """The gradients of update `t`, made of these micro-batches, are ready; its rates are written."""

    def after(self, t: int) -> Observation | None:
        """Update `t` has been applied."""


class MakeObserver(Protocol):
    """Makes an observer of the updates of `net` by `optimizer`."""

    def __call__(self, net: nn.Module, loss: Loss, optimizer: Optimizer) -> Observer:
        """The observer of one run."""


class GradientRecorder(Protocol):
    """Records the gradients of each micro-batch. What the optimizer gets has the same bits with and without it."""

    def take(self, number: int, of: int) -> None:
        """The backward pass of micro-batch `number` (1, …, `of`) of the loss over `of` has just been made."""


class RunObservers(Protocol):
    """All that observes one run, and its state in the checkpoint."""

    def begin(self, net: nn.Module, loss: Loss, optimizer: Optimizer, wrapped: nn.Module | None) -> None:
        """Take up the run; `wrapped` is the net as the strategy wraps it, which exchanges the gradients."""

    def with_probe(self, probe: MakeObserver | None) -> "RunObservers":
        """The same, with what `probe` makes in place of what the run looks at; for tools."""

    @property
    def observer(self) -> Observer | None:
        """All observers as one; None where there is none."""

    @property
    def micro_gradients(self) -> GradientRecorder | None:
        """Records the gradients of micro-batches; None where nothing asks for it."""

    def state_dict(self) -> dict[str, Any]:
        """The state of all observers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a state."""


class MakeRunObservers(Protocol):
    """Makes the observers of a run with this clock; they may set the gain of `control`."""

    def __call__(self, clock: Clock, control: LRControl) -> RunObservers:
        """The observers of one run."""
