"""Warm-ups: factors that rise to 1 over the first W updates, as pure functions of `t`.

A warm-up follows its ramp u = (t + 1) / W, which is 1 at t = W - 1: no update is wasted at a learning rate of 0.
Another `Convention` of the horizon has u = t / W or (t + 1) / (W + 1), which are 1 at t = W. Where u is 1, and from
then on, the factor is exactly 1. W is `duration`; W = 0 is no warm-up.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from trainer.lr.bounds import ConfigError, fraction, number, positive
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import START, Schedule, annotate, with_range

STEEPEST = 1000.0
"""The largest power: half-way through the warm-up the rate is then 2^-1000 of the peak."""


class Warmup(NamedTuple):
    """A warm-up of `updates` (W) updates, and its factor of `t`; `exact` is W where that is no whole number."""

    updates: int
    factor: Schedule
    exact: float | None = None

    @property
    def length(self) -> float:
        """W, not rounded."""
        return self.updates if self.exact is None else self.exact


def no_warmup(horizon: Horizon) -> Warmup:
    """w(t) = 1, W = 0."""
    return _warmup(0, lambda t: 1.0)


def hold_warmup(horizon: Horizon, *, duration: Duration = "5%") -> Warmup:
    """w(t) = 1 for W updates: the schedule stays at its first value and starts after them.

    With `warmup_mode: overlay` the schedule does not wait for a warm-up, and this changes nothing.

    >>> hold = hold_warmup(Horizon(100, 1), duration=4)
    >>> hold.updates, hold.factor(0)
    (4, 1.0)
    """
    return _warmup(horizon.updates(duration, "duration"), lambda t: 1.0)


def constant_warmup(horizon: Horizon, *, duration: Duration = "5%", factor: float = 0.01) -> Warmup:
    """w(t) = factor for t < W, then 1: one jump.  He et al. 2015, arXiv:1512.03385, with a factor of 0.1.

    The default is torchvision's. It has no ramp, and lasts W updates in every convention.

    >>> [constant_warmup(Horizon(100, 1), duration=4).factor(t) for t in (0, 3, 4)]
    [0.01, 0.01, 1.0]
    """
    length = horizon.updates(duration, "duration")  # also where a ramp may end between two updates
    low = positive("factor", factor, "it is the share of the peak during the warm-up, up to 1.")
    if low > 1:
        raise ConfigError(f"factor={factor!r} lies above the peak: give the share of it during the warm-up, up to 1.")
    return Warmup(length, annotate(lambda t: low if t < length else 1.0, jumps=[length] if length and low < 1 else []))


def linear_warmup(horizon: Horizon, *, duration: Duration = "5%", start: float = 0.0) -> Warmup:
    """w(t) = start + (1 - start) (t + 1) / W for t < W, then 1.  Goyal et al. 2017, arXiv:1706.02677.

    It reaches 1 at t = W - 1.

    >>> [linear_warmup(Horizon(100, 1), duration=4).factor(t) for t in (0, 3, 4)]
    [0.25, 1.0, 1.0]
    """
    length, lead, end = _ramp(horizon, duration)
    low = fraction("start", start, START)
    return _warmup(length, lambda t: low + (1.0 - low) * (t + lead) / end if t + lead < end else 1.0)


def exponential_warmup(horizon: Horizon, *, duration: Duration = "5%", start: float = 0.01) -> Warmup:
    """w(t) = start^(1 - u): the rate is multiplied by the same number at each update.  As in fastai.

    `start` must be above 0: an exponential cannot rise from 0.

    >>> [round(exponential_warmup(Horizon(100, 1), duration=4, start=0.0625).factor(t), 9) for t in (0, 1, 2, 3)]
    [0.125, 0.25, 0.5, 1.0]
    """
    length, lead, end = _ramp(horizon, duration)
    low = fraction("start", start, START)
    positive("start", start, "the rate is multiplied at each update, and 0 stays 0; try 0.01.")
    return _warmup(length, lambda t: low ** (1.0 - (t + lead) / end) if t + lead < end else 1.0)


def cosine_warmup(horizon: Horizon, *, duration: Duration = "5%", start: float = 0.0) -> Warmup:
    """w(t) = start + (1 - start) (1 - cos πu) / 2: slow, fast, slow.  As in fastai's one cycle.

    >>> [round(cosine_warmup(Horizon(100, 1), duration=4).factor(t), 6) for t in (0, 1, 2, 3)]
    [0.146447, 0.5, 0.853553, 1.0]
    """
    return _shaped(horizon, duration, start, lambda u: 0.5 * (1.0 - math.cos(math.pi * u)))


def one_minus_sqrt_warmup(horizon: Horizon, *, duration: Duration = "5%", start: float = 0.0) -> Warmup:
    """w(t) = start + (1 - start) (1 - √(1 - u)): slow at first, then faster.  The "1-sqrt" of Transformers.

    >>> [one_minus_sqrt_warmup(Horizon(100, 1), duration=4).factor(t) for t in (2, 3)]
    [0.5, 1.0]
    """
    return _shaped(horizon, duration, start, lambda u: 1.0 - math.sqrt(1.0 - u))


def sqrt_warmup(horizon: Horizon, *, duration: Duration = "5%", start: float = 0.0) -> Warmup:
    """w(t) = start + (1 - start) √u: fast at first, then slower.  The mirror image of "1-sqrt"; our own.

    >>> [sqrt_warmup(Horizon(100, 1), duration=4).factor(t) for t in (0, 3)]
    [0.5, 1.0]
    """
    return _shaped(horizon, duration, start, math.sqrt)


def log_warmup(horizon: Horizon, *, duration: Duration = "5%", start: float = 0.0) -> Warmup:
    """w(t) = start + (1 - start) ln(t + 2) / ln(W + 1): fast at first, then slower.

    DeepSpeed's is ln(t + 1) / ln W, which is 0 at t = 0; this is its curve for W + 1 updates without that first one.
    With the ramp t/W it is ln(t + 1) / ln(W + 1): DeepSpeed's, with W - 1 for W. In general the fraction is
    ln(1 + bu) / ln(1 + b) with the divisor b of the ramp, W or W + 1.

    >>> [round(log_warmup(Horizon(100, 1), duration=7).factor(t), 6) for t in (0, 2, 6)]
    [0.333333, 0.666667, 1.0]
    """
    _, _, end = _ramp(horizon, duration)
    whole = math.log1p(end)
    return _shaped(horizon, duration, start, lambda u: math.log1p(end * u) / whole)


def polynomial_warmup(horizon: Horizon, *, duration: Duration = "5%", power: float = 2.0, start: float = 0.0) -> Warmup:
    """w(t) = start + (1 - start) u^power: linear for power 1, slow at first above 1, fast at first below 1.

    The rising counterpart of the polynomial decay ("poly").

    >>> [polynomial_warmup(Horizon(100, 1), duration=4).factor(t) for t in (0, 1, 2, 3)]
    [0.0625, 0.25, 0.5625, 1.0]
    """
    why = f"the progress u is raised to it; give a value up to {STEEPEST:g}."
    positive("power", power, why)
    steep = number("power", power, why, high=STEEPEST)
    return _shaped(horizon, duration, start, lambda u: u**steep)


def _ramp(horizon: Horizon, duration: Duration) -> tuple[float, int, float]:
    """W, and a and b of the ramp u = (t + a) / b."""
    length = horizon.exact(duration, "duration")
    return length, *horizon.convention.progress(length)


def _warmup(length: float, factor: Schedule) -> Warmup:
    """W = `length`, rounded up, and a factor that is 1 from then on."""
    whole = math.ceil(length)
    over = lambda ts: [1.0] * len(ts) if ts.start >= whole else list(map(factor, ts))  # noqa: E731
    return Warmup(whole, with_range(factor, over), None if whole == length else length)


def _shaped(horizon: Horizon, duration: Duration, start: float, shape: Callable[[float], float]) -> Warmup:
    """w(t) = start + (1 - start) r(u) with `shape` r, until u is 1."""
    length, lead, end = _ramp(horizon, duration)
    low = fraction("start", start, START)
    rest = 1.0 - low
    return _warmup(length, lambda t: low + rest * shape((t + lead) / end) if t + lead < end else 1.0)
