"""Lets all ranks agree on a signal that only one of them may have received."""

from collections.abc import Callable

import pytorch_lightning as pl
import torch
from torch import distributed

from trainer.distributed.launch import signals
from trainer.distributed.launch.time_limit import TimeLimit


def disable_lightning_signals(trainer: pl.Trainer) -> None:
    """Keep Lightning's own handlers out: they broadcast from inside the handler, and hang where one rank has them."""
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


class StopSignal:
    """Asks whether a signal or the time limit stops any rank: each question reduces one number over all ranks."""

    def __init__(self) -> None:
        self.limit = TimeLimit()
        self._group: distributed.ProcessGroup | None = None

    def connect(self, trainer: pl.Trainer) -> None:
        """Prepare the process group; all ranks call it together. It is one of gloo, which waits for no device."""
        if trainer.world_size > 1 and self._group is None:
            own = distributed.get_backend() != "gloo"
            self._group = distributed.new_group(backend="gloo") if own else distributed.group.WORLD

    def received(self) -> int:
        """The signal that a rank has received, or `TIME_IS_UP`, the same on all ranks; 0 for none.

        Of several it is the largest.
        """
        own = signals.received() or (int(signals.TIME_IS_UP) if self.limit.is_up() else 0)
        if self._group is None:
            return own
        largest = torch.tensor(own, dtype=torch.int32)
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX, group=self._group)
        return int(largest)

    def any_rank(self, own: bool) -> bool:
        """Whether it is so on any rank; all call it together."""
        if self._group is None:
            return own
        answer = torch.tensor(int(own))
        distributed.all_reduce(answer, op=distributed.ReduceOp.MAX, group=self._group)
        return bool(answer)

    def ask_rank_zero(self, question: Callable[[], bool]) -> bool:
        """The answer of rank 0, given to all ranks; all call it together."""
        return self.any_rank((self._group is None or distributed.get_rank() == 0) and question())

    def finish_on_rank_zero(self, action: Callable[[], object]) -> None:
        """Do the last action of a run on rank 0 while all wait: a rank that ends makes its launcher end the others."""
        if self._group is None or distributed.get_rank() == 0:
            action()
        if self._group is not None:
            distributed.barrier(group=self._group)
