"""Where a run calls its step beside the losses of batches, for a step that has hooks of its own."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.engine.step import StepOutput
from trainer.engine.task import Scores, Task


class RunHooks:
    """What a run calls, in this order; nothing happens here. A step that is a subclass is called.

    A run: `connect`, `call("setup", …)`, `call("on_fit_start")`, `call("on_train_start")`, … An update: `begin_update`;
    for each micro-batch `begin_batch`, the step, `before_backward`, `after_backward`, `end_batch`; before the last
    `end_batch` come `before_step`, the optimizer's step, and `with_logs`. `end_epoch` comes before a save.
    """

    logs_scores = False
    """Whether the names of the scores are known only when they are logged."""

    @property
    def optimizes_by_hand(self) -> bool:
        """Whether the step steps the optimizers itself."""
        return False

    def connect(self, module: Any) -> None:
        """Called by the module of the run when it is made."""

    def scores(self, task: Task, stage: str) -> Scores:
        """What sums up the scores of a stage."""
        return Scores(task)

    def scored(self, stage: str) -> bool:
        """Whether there is anything to score in a stage."""
        return True

    def rehearsing(self) -> AbstractContextManager[None]:
        """While one batch is scored before the first update."""
        return nullcontext()

    def call(self, hook: str, *arguments: Any) -> Any:
        """Called where Lightning calls the hook of this name."""

    def begin_update(self) -> None:
        """Called before an update."""

    def begin_batch(self, i: int, batch: Any) -> Any:
        """Called before the step on micro-batch `i` of an update; gives the batch for the step."""
        return batch

    def before_backward(self, loss: Tensor) -> None:
        """Called before each backward pass."""

    def after_backward(self) -> None:
        """Called after each backward pass."""

    def before_step(self, optimizer: Optimizer) -> None:
        """Called when the gradients are complete, before they are treated."""

    def with_logs(self, logs: Mapping[str, Tensor], loss: Tensor) -> Mapping[str, Tensor]:
        """The logs of an update, of which `logs` are known."""
        return logs

    def end_batch(self) -> None:
        """Called after each micro-batch; for the last of an update after the optimizer's step."""

    def end_epoch(self) -> None:
        """End the epoch if it is over."""

    def score(self, stage: str, batch: Any, batch_idx: int, step: Callable[[Any], StepOutput]) -> StepOutput:
        """The output for a batch of validation or test data."""
        return step(batch)

    def state_dict(self, net: nn.Module) -> dict[str, Any]:
        """What a checkpoint must hold beside the weights."""
        return {}

    def load_state_dict(self, state: dict[str, Any], weights: Mapping[str, Any]) -> None:
        """Restore a state; `weights` are those of the checkpoint."""
