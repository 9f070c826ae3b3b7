"""A run of a stack makes its log, scores, checkpoints and result: it takes its updates from the stack."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch.optim import Optimizer

from trainer.config.batch_schedule import interval, snapshot_updates
from trainer.config.components import Parts
from trainer.engine.update import Backward, Updater
from trainer.tools.stacked import Stack


def replay(stack: Stack, i: int) -> None:
    """Have run `i` take its updates from a stack that has been trained, in the fit that follows."""
    module = stack.parts[i].module
    module.clock.t = 0
    make = module.make_updater
    module.make_updater = partial(_taking, stack, i, make)  # type: ignore[method-assign]
    stop: Any = stack.parts[i].checkpointing.stop_signal
    stop.received = lambda: 0  # between two of the updates that were kept there is no state to save


def updates_to_keep(parts: Parts) -> set[int]:
    """After how many updates a run validates or saves."""
    horizon, run = parts.module.horizon, parts.resolved.settings.trainer
    durations = {"trainer.validate": run.validate, "trainer.checkpoint": run.checkpoint}
    every = [interval(horizon, duration, name) for name, duration in durations.items() if duration is not None]
    found = {t for one in every if isinstance(one, int) for t in range(one, horizon.total, one)}
    return found.union(snapshot_updates(horizon, run.snapshots), [horizon.total])


def _taking(stack: Stack, i: int, make: Any, optimizer: Optimizer, backward: Backward) -> Any:
    return TakesUpdates(stack, i, make(optimizer, backward))


class TakesUpdates:
    """Stands in for an updater: logs what the stack has done, and takes its weights where it has kept them."""

    def __init__(self, stack: Stack, i: int, updater: Updater) -> None:
        self.stack, self.i, self.updater, self.optimizer = stack, i, updater, updater.optimizer

    def __call__(self, update: Sequence[Any]) -> bool:
        """Take the update that the clock shows."""
        control, clock, buffer, stack = self.updater.control, self.updater.clock, self.updater.metric_buffer, self.stack
        t = clock.t
        if not len(buffer) and t:
            buffer.since = stack.times[t - 1]
        control.write(self.optimizer, clock.at)
        control.verify(self.optimizer)
        self.updater.conclude(stack.losses[t][self.i], stack.norms[t][self.i], {})
        buffer.times[-1] = stack.times[t]
        if clock.t in stack.kept:
            stack.load(self.i, clock.t, self.optimizer)
        return True
