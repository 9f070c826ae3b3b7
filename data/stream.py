"""The training loader: batch(t), from whatever update the clock shows, in blocks of updates."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from data.bounds import whole
from data.order import Order
from data.source import Batch, Source


class MicroBatch(NamedTuple):
    """One slice of a global batch; `seed` decides everything random about it, dropout included."""

    inputs: Tensor
    targets: Tensor
    seed: int


Update = list[MicroBatch]
Transform = Callable[[Tensor, int], Tensor]
Ends = int | Callable[[int], int]
"""An interval in updates, or a function that gives the next end after update `t`."""


@dataclass(frozen=True)
class Run:
    """Where a run stands and when control must return to the trainer; every number counts updates.

    `clock` gives the current update, `total` the length of the run, `leg` the updates between two
    validations, `pauses` other intervals at which a block must end (checkpoints), `per_call` the most updates
    in a block. Where a leg or a pause is not so many updates each time, a function gives its next end.
    """

    clock: Callable[[], int]
    total: int
    leg: Ends
    pauses: tuple[Ends, ...] = ()
    per_call: int = 1

    def __post_init__(self) -> None:
        for name in ("total", "per_call"):
            whole(name, getattr(self, name))
        for name, ends in (("leg", self.leg), *(("pause", ends) for ends in self.pauses)):
            if not callable(ends):
                whole(name, ends)

    def leg_end(self, t: int) -> int:
        """The update at which the leg of update `t` ends, exclusive."""
        return min(self.total, _next(self.leg, t))

    def cuts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The blocks [t, stop) that cover [start, end)."""
        while start < end:
            stop = min(end, start + self.per_call, *(_next(ends, start) for ends in self.pauses))
            yield start, stop
            start = stop


class Stream:
    """Iterating gives one leg of the run, from the update that the clock shows to the next validation.

    It yields blocks: lists of consecutive updates, each a list of micro-batches, on the device of the source. It
    has no length, for a leg that starts in the middle is shorter.
    """

    def __init__(self, source: Source, order: Order, run: Run, augment: Transform | None = None) -> None:
        self.source, self.order, self.run, self.augment = source, order, run, augment

    def __iter__(self) -> Iterator[list[Update]]:
        start = self.run.clock()
        end = self.run.leg_end(start)
        batches = self.source.batches(self.order.picks(start, end))
        for first, stop in self.run.cuts(start, end):
            yield [self._update(t, batches) for t in range(first, stop)]

    def _update(self, t: int, batches: Iterator[Batch]) -> Update:
        seeds = [self.order.micro_seed(t, micro) for micro in range(self.order.micro_batches(t))]
        return [self._micro_batch(*next(batches), seed) for seed in seeds]

    def _micro_batch(self, inputs: Tensor, targets: Tensor, seed: int) -> MicroBatch:
        return MicroBatch(self.augment(inputs, seed) if self.augment else inputs, targets, seed)


def _next(ends: Ends, t: int) -> int:
    return ends(t) if callable(ends) else (t // ends + 1) * ends
