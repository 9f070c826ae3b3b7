"""The training loader of a set that is streamed: it goes on where it stopped, and knows where each update begins."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

from data.order import Order
from data.stream import Clock, Loop, Stream, Transform
from data.streamed import Position

ReadFrom = Callable[[Position], Iterator[tuple[Any, Position]]]
"""Gives batches from a position on, each with the position after it."""


class StreamedLoader(Stream):
    """Iterating gives the batches from the update that the clock shows to the next validation.

    The loader may run ahead of the training; `position(t)` is where update `t` begins, from the clock's update on.
    `begins` is the position of the clock's update when it is first asked for batches. `order` gives seeds and sizes.
    RuntimeError where the clock has been set back, because what was read is gone.
    """

    def __init__(
        self,
        read: ReadFrom,
        begins: Position,
        order: Order,
        clock: Clock,
        loop: Loop,
        augment: Transform | None = None,
    ) -> None:
        super().__init__(None, order, clock, loop, augment)  # type: ignore[arg-type]
        self.read, self.begins = read, begins
        self._positions: dict[int, Position] = {}
        self._reading: Iterator[tuple[Any, Position]] = iter(())
        self._next: int | None = None

    def position(self, t: int) -> Position:
        """Where update `t` begins."""
        return self._positions.get(t, self.begins)

    def close(self) -> None:
        """End the processes that read; what is asked for afterwards is read anew."""
        if isinstance(self._reading, Generator):
            self._reading.close()
        self._next = None

    def samples(self, t: int) -> Iterator[tuple[int, Any]]:
        """None, since a sample cannot be read again."""
        return iter(())

    def _batches(self, start: int, end: int) -> Iterator[Any]:
        if not self._positions:
            self._positions[start] = self.begins
        if start not in self._positions:
            raise RuntimeError(
                f"update {start} was read before, and a set that is streamed cannot go back: leave out what reads "
                "batches again, such as average.recalibrate."
            )
        if start != self._next:
            self._reading = self.read(self._positions[start])
        for t in range(start, end):
            self._next, count = None, self.order.micro_batches(t)
            for micro in range(count):
                batch, position = next(self._reading)
                if micro + 1 == count:
                    self._conclude(t, position)
                yield batch

    def _conclude(self, t: int, position: Position) -> None:
        """Update `t` has been read: the next one begins at `position`; those before the clock are forgotten."""
        self._next = t + 1
        self._positions = {at: there for at, there in self._positions.items() if at >= self.clock()} | {t + 1: position}
