"""Where tools differ: the start of a ramp, the end of a decay, the update of a stair, durations between updates."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from trainer.lr.bounds import ConfigError, integer

Width = TypeVar("Width", int, float)
RAMPS = {"(t+1)/W": (1, 0), "t/W": (0, 0), "(t+1)/(W+1)": (1, 1)}
ROUNDING: dict[str, Callable[[Fraction | float], int]] = {
    "nearest": lambda updates: math.floor(updates + Fraction(1, 2)),
    "up": math.ceil,
    "down": math.floor,
}


@dataclass(frozen=True)
class Convention:
    """How a curve is read. The defaults are this framework's own.

    ramp: how far a warm-up of W updates is at update t: "(t+1)/W" reaches 1 at t = W-1, "t/W" begins at 0 and
        reaches 1 at t = W, "(t+1)/(W+1)" begins above 0 and reaches 1 at t = W.
    early: the decay ends this many updates before T: 1 puts its floor on the last update, T-1, in place of T, which
        no update uses. Beside a ramp (t+1)/W it then begins at W-1 too, which is -1 without a warm-up.
    shift: a stair falls this many updates after its milestone.
    rounding: how a duration between two updates becomes whole: "nearest", "up" or "down".
    exact: boundaries of the curve may lie between two updates, where the schedule allows it; nothing is rounded there.
    """

    ramp: str = "(t+1)/W"
    early: int = 0
    shift: int = 0
    rounding: str = "nearest"
    exact: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.ramp, str) or self.ramp not in RAMPS:
            raise ConfigError(f"compat.ramp={self.ramp!r} is not known: choose one of {', '.join(RAMPS)}.")
        integer("compat.early", self.early, "a decay ends at T or one update before: give 0 or 1.", 0, 1)
        if not isinstance(self.rounding, str) or self.rounding not in ROUNDING:
            raise ConfigError(f"compat.round={self.rounding!r} is not known: choose one of {', '.join(ROUNDING)}.")
        integer("compat.shift", self.shift, "it is how many updates after its milestone a stair falls.", low=-(10**9))

    @property
    def joins_early(self) -> bool:
        """Whether the decay begins at W-1, one update early: where there is a warm-up, it is at 1 there."""
        return self.early == 1 and self.ramp == "(t+1)/W"

    def progress(self, width: Width) -> tuple[int, Width]:
        """(a, b) of the ramp u = (t + a) / b of a warm-up of `width` updates."""
        lead, extra = RAMPS[self.ramp]
        return lead, width + extra


OURS = Convention()
