"""Warm-ups: factors that rise to 1 over the first W updates, as pure functions of `t`."""

from typing import NamedTuple

from trainer.lr.bounds import fraction
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import Schedule


class Warmup(NamedTuple):
    """A warm-up of `updates` (W) updates, and its factor of `t`."""

    updates: int
    factor: Schedule


def no_warmup(horizon: Horizon) -> Warmup:
    """w(t) = 1, W = 0."""
    return Warmup(0, lambda t: 1.0)


def linear_warmup(horizon: Horizon, *, duration: Duration, start: float = 0.0) -> Warmup:
    """w(t) = start + (1 - start) (t + 1) / W for t < W, then 1.  Goyal et al. 2017, arXiv:1706.02677.

    It reaches 1 at t = W - 1, and no update is wasted at a learning rate of 0.

    >>> [linear_warmup(Horizon(100, 1), duration=4).factor(t) for t in (0, 3, 4)]
    [0.25, 1.0, 1.0]
    """
    length = horizon.updates(duration, "duration")
    low = fraction("start", start, "it is the share of the peak at which the warm-up starts, from 0 to 1.")
    return Warmup(length, lambda t: low + (1.0 - low) * (t + 1) / length if t + 1 < length else 1.0)
