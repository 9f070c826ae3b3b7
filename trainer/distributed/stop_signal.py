"""What all ranks do together about a signal that may have reached one of them only."""

from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch import distributed

from trainer.distributed.launch import signals


def ignore_signals(trainer: pl.Trainer) -> None:
    """Keep Lightning's own handlers out: theirs broadcasts from inside the handler, and waits for ever on one rank."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


class StopSignal:
    """Asks, with one number a time over all ranks, whether any of them shall stop."""

    def __init__(self) -> None:
        self._group: distributed.ProcessGroup | None = None

    def begin(self, trainer: pl.Trainer) -> None:
        """Make ready; all ranks call it together. Numbers go over the CPU, so that no device is waited for."""
        if trainer.world_size > 1:
            own = distributed.get_backend() != "gloo"
            self._group = distributed.new_group(backend="gloo") if own else distributed.group.WORLD

    def signal(self) -> int:
        """The signal that a rank has noted, the same on all of them; 0: go on. The greatest, where there are many."""
        own = signals.noted()
        if self._group is None:
            return own
        flag = torch.tensor(own, dtype=torch.int32)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=self._group)
        return int(flag)

    def shared(self, own: Callable[[], bool]) -> bool:
        """What rank 0 finds, on all ranks; all call it together."""
        found = torch.tensor(int((self._group is None or distributed.get_rank() == 0) and own()))
        if self._group is not None:
            distributed.all_reduce(found, op=distributed.ReduceOp.MAX, group=self._group)
        return bool(found)

    def part(self, last: Callable[[], object]) -> None:
        """Do the last thing on rank 0 while all wait: the first to leave would have its launcher end the others."""
        if self._group is None or distributed.get_rank() == 0:
            last()
        if self._group is not None:
            distributed.barrier(group=self._group)
