"""The whole curve before training, the checks on it, and a sketch of it for a terminal."""

import math
from dataclasses import dataclass
from functools import cached_property

from trainer.lr.bounds import Refusal
from trainer.lr.horizon import Horizon
from trainer.lr.policy import Policy

_BLOCKS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Plan:
    """Every learning rate of a run, known before its first update.

    Raises `Refusal` where a learning rate is negative or not finite, or where all are zero.
    """

    policy: Policy
    horizon: Horizon

    def __post_init__(self) -> None:
        for t, lr in enumerate(self.curve):
            if not 0.0 <= lr < math.inf:
                raise Refusal(f"the learning rate of update {t} is {lr}: it must be finite and not negative.")
        if not any(self.curve):
            raise Refusal("the learning rate is 0 at every update: nothing would be trained.")

    @cached_property
    def curve(self) -> list[float]:
        """The learning rate of the first group at t = 0 … T-1."""
        return [self.policy.lrs(t)[0] for t in range(self.horizon.total)]

    @cached_property
    def peak(self) -> int:
        """The first update with the highest learning rate."""
        return max(range(self.horizon.total), key=self.curve.__getitem__)

    def landmarks(self) -> list[int]:
        """The updates worth a row in a table: ends, end of warm-up, peak, quarters."""
        total, width = self.horizon.total, self.policy.warmup.updates
        points = {0, width - 1, width, self.peak, *(total * i // 4 for i in (1, 2, 3)), total - 1}
        return sorted(t for t in points if 0 <= t < total)

    def facts(self) -> dict[str, object]:
        """What a reader wants to know of the curve, as plain numbers."""
        curve, horizon = self.curve, self.horizon
        return {
            "total_updates": horizon.total,
            "warmup_updates": self.policy.warmup.updates,
            "updates_per_epoch": horizon.updates_per_epoch,
            "base_lr": self.policy.base_lr,
            "scale": self.policy.scale,
            "peak_lr": curve[self.peak],
            "peak_update": self.peak,
            "first_lr": curve[0],
            "last_lr": curve[-1],
            "mean_lr": math.fsum(curve) / len(curve),
        }

    def sketch(self, width: int = 72, height: int = 10) -> list[str]:
        """The curve as lines of block characters, the peak at full height."""
        width, top = min(width, len(self.curve)), self.curve[self.peak]
        columns = [self.curve[(2 * i + 1) * len(self.curve) // (2 * width)] / top for i in range(width)]
        return [
            "".join(_BLOCKS[max(0, min(8, round((value * height - row) * 8)))] for value in columns).rstrip()
            for row in reversed(range(height))
        ]
