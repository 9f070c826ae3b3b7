"""The rules of the divergence guard: which loss or gradient norm is a spike, and what follows."""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from trainer.lr.bounds import ConfigError, integer, positive, positive_share

CONSISTENT = 1.4826
"""1 / Φ⁻¹(3/4): the MAD of a normal distribution, times this, is its standard deviation."""
FLOOR = 0.05
"""The smallest scale that a score divides by, as a share of the median, for windows that hardly vary."""


@dataclass(frozen=True)
class Stop:
    """The run ends at an update whose loss or gradient norm is not finite, or is a spike.

    A spike is a loss or a norm with a robust score above `threshold` over the last `window` applied updates, see
    `Window`. None: spikes are not looked for.
    """

    threshold: float | None = None
    window: int = 128

    def __post_init__(self) -> None:
        if self.threshold is not None:
            positive("guard.threshold", self.threshold, "it is how many deviations make a spike; try 10, or null.")
        integer("guard.window", self.window, "it is a number of updates to compare with; try 128.", low=8, high=10**6)


@dataclass(frozen=True)
class Skip(Stop):
    """An offending update is left out: the next batch takes its place. The run ends after `limit` within a window.

    The limit counts updates left out while the clock made the last `window` updates.
    """

    limit: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("guard.limit", self.limit, "it is how many updates may be left out within the window.")


@dataclass(frozen=True)
class Rollback(Stop):
    """The run returns to its newest finite checkpoint, at most `limit` times.

    `leave_out`: the offending batch is left out when its turn comes again. `backoff` multiplies the learning rate from
    the checkpoint on, and returns to 1 over `rewarm` updates, or stays with 0 (see `trainer.lr.backoff`).
    """

    limit: int = 5
    leave_out: bool = True
    backoff: float = 0.5
    rewarm: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("guard.limit", self.limit, "it is how often the run may roll back.")
        integer("guard.rewarm", self.rewarm, "it is the updates over which backoff returns to 1, or 0: never.", low=0)
        positive_share("guard.backoff", self.backoff, "it multiplies the learning rate after a rollback; try 0.5.")
        if self.backoff == 1 and not self.leave_out:
            raise ConfigError(
                "guard.backoff=1 with guard.leave_out=false would repeat the same updates: lower one, or set the other."
            )


class Window:
    """The last `size` values of a series. `score(x)` = (x - m) / max(1.4826 · MAD, 0.05 · |m|), m their median.

    MAD is the median of |xᵢ - m|: for normal values the score counts standard deviations, and outliers in the window
    hardly change it. The score is 0 until the window is half full.

    >>> window = Window(8)
    >>> window.extend([1.0, 1.1, 0.9, 1.0, 1.2, 0.8])
    >>> round(window.score(2.0), 2)
    6.74
    """

    def __init__(self, size: int) -> None:
        self.values: deque[float] = deque(maxlen=size)
        self._sorted: list[float] = []

    def extend(self, values: Iterable[float]) -> None:
        """Add finite values, the newest last."""
        for value in values:
            if len(self.values) == self.values.maxlen:
                del self._sorted[bisect_left(self._sorted, self.values[0])]
            self.values.append(value)
            insort(self._sorted, value)

    def score(self, value: float) -> float:
        """The robust score of a value."""
        count = len(self._sorted)
        if 2 * count < (self.values.maxlen or 0):
            return 0.0
        middle = (self._sorted[(count - 1) // 2] + self._sorted[count // 2]) / 2
        if value <= middle:
            return 0.0
        deviation = median(abs(one - middle) for one in self._sorted)
        scale = max(CONSISTENT * deviation, FLOOR * abs(middle))
        return (value - middle) / scale if scale else math.inf

    @property
    def middle(self) -> float:
        """The median."""
        return median(self._sorted)
