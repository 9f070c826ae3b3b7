"""The trainer as a user's LightningModule sees it: Lightning's, with the clock and the epochs of the run."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.loggers.logger import DummyExperiment
from torch import Tensor
from torch.optim import Optimizer

from trainer.log.failsafe import FailsafeWriter
from trainer.log.tensorboard import TensorBoard
from trainer.lr import Horizon


def epoch_of(horizon: Horizon, t: int) -> int:
    """The epoch that update `t` belongs to; 0 where epochs are not known."""
    return horizon.growth.at(t) // horizon.updates_per_epoch if horizon.updates_per_epoch else 0


def batch_of(horizon: Horizon, t: int, accumulate: int) -> int:
    """The index in its epoch of the first micro-batch of update `t`."""
    return (horizon.growth.at(t) - epoch_of(horizon, t) * (horizon.updates_per_epoch or 0)) * accumulate


class TrainerView:
    """What `self.trainer` is in a LightningModule: attributes that are not here are those of Lightning's trainer.

    A run's epochs are passes over the data, while those of Lightning's trainer lie between two validations. `source`
    has the `horizon`, `clock` and `spec` of the run, and `_trainer`, which is None before the run is built.
    """

    lr_scheduler_configs: list[Any] = []

    def __init__(self, source: Any, more: Mapping[str, Any]) -> None:
        self._source, self._more = source, more
        self.epoch: int | None = None
        self.update: int | None = None
        """The update that has begun last; None where none has in this fit."""
        self.optimizers: list[Optimizer] = []
        self.callback_metrics: dict[str, Tensor] = {}
        self.sanity_checking = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._more:
            return self._more[name]
        trainer = self._source._trainer
        if trainer is None:
            raise AttributeError(f"self.trainer.{name} is not known before the run is built.")
        return getattr(trainer, name)

    @property
    def current_epoch(self) -> int:
        """The number of passes over the training data so far."""
        return epoch_of(self._source.horizon, self.global_step) if self.epoch is None else self.epoch

    @property
    def global_step(self) -> int:
        """The number of updates so far."""
        t: int = self._source.clock.t
        return t

    @property
    def estimated_stepping_batches(self) -> int:
        """The length of the run in updates."""
        total: int = self._source.horizon.total
        return total

    max_steps = estimated_stepping_batches

    @property
    def max_epochs(self) -> int:
        """The length of the run in epochs, rounded up; -1 where they are not known."""
        horizon = self._source.horizon
        return epoch_of(horizon, horizon.total - 1) + 1 if horizon.updates_per_epoch else -1

    @property
    def num_training_batches(self) -> float:
        """The micro-batches of an epoch on this process."""
        length: int | None = self._source.horizon.updates_per_epoch
        return float("inf") if length is None else length * self.accumulate_grad_batches

    @property
    def accumulate_grad_batches(self) -> int:
        """The micro-batches of an update on this process."""
        count: int = self._source.spec.accumulate
        return count

    @property
    def is_last_batch(self) -> bool:
        """Whether this is the last update of its epoch."""
        t, horizon = self.global_step, self._source.horizon
        return t + 1 >= horizon.total or epoch_of(horizon, t + 1) != epoch_of(horizon, t)

    @property
    def logged_metrics(self) -> dict[str, Tensor]:
        """The newest scores by the module's names."""
        return self.callback_metrics

    @property
    def loggers(self) -> list[Any]:
        """The loggers of the run."""
        trainer = self._source._trainer
        return [] if trainer is None else [LoggerView(logger, self) for logger in trainer.loggers]

    @property
    def logger(self) -> Any:
        """The first logger of the run."""
        return next(iter(self.loggers), None)


class LoggerView:
    """A logger of the run that takes the number of the update where none is given.

    `experiment` of the run's TensorBoard is a SummaryWriter for pictures and texts, with an event file of its own.
    """

    def __init__(self, logger: Any, trainer: TrainerView) -> None:
        self._logger, self._trainer = logger, trainer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers of an update, by default of the one that has begun last: a resume keeps what comes before it."""
        if self._trainer.sanity_checking:
            return
        newest = max(self._trainer.global_step - 1, 0) if self._trainer.update is None else self._trainer.update
        self._logger.log_metrics(metrics, newest if step is None else step)

    @property
    def experiment(self) -> Any:
        """What the logger writes with."""
        if self._trainer.sanity_checking:
            return DummyExperiment()
        if not isinstance(self._logger, TensorBoard):
            return self._logger.experiment
        if self._trainer.global_rank:
            return DummyExperiment()
        if not hasattr(self._logger, "writer"):
            from torch.utils.tensorboard import SummaryWriter  # late: few modules need it

            self._logger.writer = FailsafeWriter(SummaryWriter(self._logger.log_dir))  # type: ignore[attr-defined]
        return self._logger.writer  # type: ignore[attr-defined]
