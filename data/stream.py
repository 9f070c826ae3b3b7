"""The training loader: the batches from the clock's update on, in chunks of updates."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from data.bounds import integer
from data.order import Order
from data.source import Memory, Source


class MicroBatch(NamedTuple):
    """One slice of a global batch, as the source yields it, such as a pair (inputs, targets).

    `seed` decides everything random about it, dropout included.
    """

    batch: Any
    seed: int


Update = list[MicroBatch]
Transform = Callable[[Any, int], Any]
Clock = Callable[[], int]
Ends = int | Callable[[int], int]
"""An interval in updates, or a function that gives the next end after update `t`."""
_RETURN = 0.1
"""Seconds within which control returns to the trainer."""
_AT_ONCE = 2**20
"""Bytes of the updates that are cut one after another: of small ones that takes half the time of one by one."""


@dataclass(frozen=True)
class Loop:
    """When control returns to the trainer, and how many micro-batches an update has.

    In updates: `total`, the length of the run; `validation_interval`, between two validations; `pauses`, other
    intervals at which a chunk ends (checkpoints); `steps_per_execution`, the most in a chunk, and with `longest` up to
    that many while control returns within 0.1 s. Where an interval varies, it is a function that gives its next end.
    `accumulate`: micro-batches of an update in each process. `stages`:
    (first update, ratio) for each size of a growing batch, `left_out`: positions that no update takes, and `repeated`:
    how many batches are taken again and again, None for all; see `Order`. `whole`: each chunk is a list that is read
    before its first update, for callbacks that look at it.
    """

    total: int
    validation_interval: Ends
    pauses: tuple[Ends, ...] = ()
    steps_per_execution: int = 1
    longest: int | None = None
    accumulate: int = 1
    stages: Sequence[tuple[int, int]] = ((0, 1),)
    left_out: Sequence[int] = ()
    repeated: int | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        for name in ("total", "steps_per_execution", "accumulate"):
            integer(name, getattr(self, name))
        intervals = [("validation_interval", self.validation_interval), *(("pause", ends) for ends in self.pauses)]
        for name, ends in intervals:
            if not callable(ends):
                integer(name, ends)

    def next_validation(self, t: int) -> int:
        """The update before which the first validation after update `t` runs."""
        return min(self.total, _next(self.validation_interval, t))

    def chunks(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The chunks [t, stop) that cover [start, end)."""
        length, chunks = self.steps_per_execution, 0
        while start < end:
            stop = min(end, start + length, *(_next(ends, start) for ends in self.pauses))
            asked = time.perf_counter()
            yield start, stop
            chunks += 1
            if self.longest is not None and chunks > 1:  # Lightning asks for the second before it trains on the first
                length = self._paced(length, (time.perf_counter() - asked) / (stop - start))
            start = stop

    def _paced(self, length: int, seconds: float) -> int:
        """The updates of the next chunk, where one of `length` took so many seconds for each: at most twice as many."""
        assert self.longest is not None
        quick = int(min(_RETURN / max(seconds, 1e-9), 2 * length, self.longest))
        return max(self.steps_per_execution, quick)


class Chunk:
    """The updates in [first, stop) of samples in memory, each as it is stored, cut when their turn comes."""

    def __init__(self, cut: Callable[[int, int], Iterator[Update]], first: int, stop: int) -> None:
        self.cut, self.first, self.stop = cut, first, stop

    def __len__(self) -> int:
        return self.stop - self.first

    def __iter__(self) -> Iterator[Update]:
        return self.cut(self.first, self.stop)

    def __getitem__(self, i: int) -> Update:
        t = range(self.first, self.stop)[i]
        return next(self.cut(t, t + 1))


class Stream:
    """Iterating gives the batches from the update that the clock shows to the next validation.

    It yields chunks of consecutive updates, each a list of micro-batches, on the device of the source. It has no
    length, because a run may resume between two validations. `clock` gives the current update.
    """

    def __init__(
        self, source: Source, order: Order, clock: Clock, loop: Loop, augment: Transform | None = None
    ) -> None:
        self.source, self.order, self.clock, self.loop, self.augment = source, order, clock, loop, augment

    def __iter__(self) -> Iterator[Iterable[Update]]:
        start = self.clock()
        end = self.loop.next_validation(start)
        source = self.source
        if isinstance(source, Memory) and not (source.prepare or self.augment or self.loop.whole):
            cut = partial(self._cut, source.sample_bytes)  # within a step, whose precision changes no stored sample
            yield from (Chunk(cut, first, stop) for first, stop in self.loop.chunks(start, end))
            return
        batches = self._batches(start, end)
        for first, stop in self.loop.chunks(start, end):
            yield [self._update(t, batches) for t in range(first, stop)]

    def samples(self, t: int) -> Iterator[tuple[int, Any]]:
        """The index of each sample of update `t` on this process, with a batch of this sample alone."""
        for i, pick in enumerate(self.order.picks(t, t + 1)):
            for index in pick.indices:
                alone = pick._replace(indices=index[None])
                read = getattr(self.source, "read", lambda one: next(iter(self.source.batches([one]))))
                yield int(index), augmented(read(alone), self.order.micro_seed(t, i), self.augment).batch

    def _cut(self, sample_bytes: int, first: int, stop: int) -> Iterator[Update]:
        """The updates; small ones are cut some at a time, large ones would not stay in the processor's cache."""
        batches = self._batches(first, stop)
        samples = self.order.layout.batch_size * self.order.micro_batches(first)
        some = max(1, _AT_ONCE // max(1, samples * sample_bytes))
        for begin in range(first, stop, some):
            yield from [self._update(t, batches) for t in range(begin, min(stop, begin + some))]

    def _batches(self, start: int, end: int) -> Iterator[Any]:
        return self.source.batches(self.order.picks(start, end))

    def _update(self, t: int, batches: Iterator[Any]) -> Update:
        order, augment = self.order, self.augment
        seeds = [order.micro_seed(t, micro) for micro in range(order.micro_batches(t))]
        if augment is None:
            return [MicroBatch(next(batches), seed) for seed in seeds]
        return [augmented(next(batches), seed, augment) for seed in seeds]


def augmented(batch: Any, seed: int, augment: Transform | None) -> MicroBatch:
    """The micro-batch of `batch`; `augment(inputs, seed)` changes the first part of a tuple, or all of the batch."""
    if augment:
        batch = (augment(batch[0], seed), *batch[1:]) if isinstance(batch, list | tuple) else augment(batch, seed)
    return MicroBatch(batch, seed)


def _next(ends: Ends, t: int) -> int:
    return ends(t) if callable(ends) else (t // ends + 1) * ends
