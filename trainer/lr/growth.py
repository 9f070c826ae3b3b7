"""The clock of a run whose batch grows, and its reference clock, which counts updates of the starting batch.

Warm-up, schedule and durations are given in reference updates, of B0 samples each. Update t of the run has a batch of
ratio(t) · B0: it trains on the samples of ratio(t) reference updates, from at(t) on, in their order. What is due at a
reference update comes with the first update of the run that has reached it.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple


class Stage(NamedTuple):
    """From `update` on, which begins at reference update `at`, each update covers `ratio` reference updates."""

    update: int
    at: int
    ratio: int


@dataclass(frozen=True)
class Growth:
    """How the batch grows over `reference` updates of the starting batch; by default it does not.

    The learning rate scales as B^exponent. A batch above `noise_batch`, the noise scale in samples, gives a warning.

    >>> growth = Growth.of([(0, 1), (6, 4)], reference=16)
    >>> [growth.at(t) for t in range(10)], growth.first(7), growth.first(16)
    ([0, 1, 2, 3, 4, 5, 6, 10, 14, 18], 7, 9)
    """

    stages: tuple[Stage, ...] = (Stage(0, 0, 1),)
    reference: int = 0
    exponent: float = 1.0
    noise_batch: int | None = None
    _updates: list[int] = field(init=False, repr=False, compare=False)
    _places: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_updates", [stage.update for stage in self.stages])
        object.__setattr__(self, "_places", [stage.at for stage in self.stages])

    @classmethod
    def of(
        cls, stairs: list[tuple[int, int]], reference: int, exponent: float = 1.0, noise_batch: int | None = None
    ) -> "Growth":
        """From the (reference update, ratio) of each stair: a stage begins with the first update that has reached it.

        A stair that lies within a single update gets no stage.
        """
        stages, t, at = [Stage(0, 0, stairs[0][1])], 0, 0
        for (_, ratio), (end, _) in zip(stairs, [*stairs[1:], (reference, 0)]):
            if stages[-1].ratio != ratio and at < end:
                stages.append(Stage(t, at, ratio))
            updates = max(0, -(-(end - at) // ratio))
            t, at = t + updates, at + updates * ratio
        return cls(tuple(stages), reference, exponent, noise_batch)

    @property
    def grows(self) -> bool:
        """Whether any update has another batch than the starting one."""
        return len(self.stages) > 1

    @property
    def largest(self) -> Stage:
        """The first stage with the largest batch."""
        return max(self.stages, key=lambda stage: stage.ratio)

    def ratio(self, t: int) -> int:
        """The batch of update `t` over the starting one."""
        return self._stage(t).ratio

    def at(self, t: int) -> int:
        """The reference update that update `t` begins with."""
        stage = self._stage(t)
        return stage.at + (t - stage.update) * stage.ratio

    def first(self, at: int) -> int:
        """The first update that begins at or after reference update `at`."""
        stage = self.stages[bisect_right(self._places, at) - 1]
        return stage.update - (stage.at - at) // stage.ratio

    def next(self, every: int, t: int) -> int:
        """The first update after `t` that has reached another multiple of `every` reference updates."""
        return self.first((self.at(t) // every + 1) * every)

    def _stage(self, t: int) -> Stage:
        last = self.stages[-1]
        return last if t >= last.update else self.stages[bisect_right(self._updates, t) - 1]


STEADY = Growth()
"""A batch that does not grow."""
