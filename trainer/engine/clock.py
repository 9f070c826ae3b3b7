"""The one clock: how many optimizer updates have been applied."""

import math
from dataclasses import dataclass, field


@dataclass
class Clock:
    """`t` is the number of applied updates, and so the index of the next one.

    Under AdaScale `tau` is their worth in updates of the base batch: the scale-invariant iterations. `left_out` are the
    positions in the order of the data that no update takes (see `data.order`), in their order.
    """

    t: int = 0
    tau: float | None = None
    left_out: list[int] = field(default_factory=list)

    @property
    def at(self) -> int:
        """The place of the next update on the curve: t, or ⌊τ⌋ under AdaScale."""
        return self.t if self.tau is None else math.floor(self.tau)
