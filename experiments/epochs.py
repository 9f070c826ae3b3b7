"""What an arm whose batch grows is like at each epoch of samples."""

from collections.abc import Sequence
from typing import Any

from experiments.training import scored
from trainer.run import Assembly


class Epochs:
    """An observer of updates: at the first that completes another epoch, samples seen, loss, updates, batch, rate."""

    def __init__(self, assembly: Assembly, epoch: int) -> None:
        self.assembly, self.epoch = assembly, epoch
        self.rows: list[tuple[int, float, int, int, float]] = []
        self.samples = self.batch = 0

    def attach(self, net: Any, loss: Any, optimizer: Any) -> "Epochs":
        """The observer of an updater."""
        self.optimizer = optimizer
        return self

    def before(self, t: int, update: Sequence[Any]) -> None:
        """Count the samples of the update."""
        self.batch = sum(len(micro.inputs) for micro in update)
        self.samples += self.batch

    def after(self, t: int) -> None:
        """Measure, if an epoch is complete."""
        if self.samples // self.epoch > (self.samples - self.batch) // self.epoch:
            loss, rate = scored(self.assembly, "train")[0], self.optimizer.param_groups[0]["lr"]
            self.rows.append((self.samples, loss, t + 1, self.batch, rate))
