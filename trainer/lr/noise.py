"""Noise on a schedule: a function of the seed and the update alone."""

import math
from collections.abc import Callable
from statistics import NormalDist

from trainer.lr.bounds import ConfigError, integer, positive
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import Schedule, annotate, annotations

KINDS = ("normal", "uniform")
_WORD = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15


def noisy(
    horizon: Horizon,
    *,
    of: Callable[[Horizon], Schedule],
    kind: str = "normal",
    std: float = 1.0,
    limit: float = 0.67,
    start: Duration = "0%",
    seed: int = 0,
) -> Schedule:
    """m(t) = m_1(t) (1 + ε(t)), |ε(t)| < `limit`: the schedule `of` with noise, from update `start` to the end.

    `kind` is the law of ε: "normal" with deviation `std`, cut off at the limit, or "uniform". ε(t) is a function of
    `seed` and t alone, so any update can be asked for in any order. The schedule's first update and updates past its
    end have no noise. As in timm.

    >>> curve = noisy(Horizon(100, 1), of=lambda horizon: lambda t: 0.5, limit=0.1)
    >>> curve(7) == curve(7) != curve(8), curve(100), all(0.45 < curve(t) < 0.55 for t in range(100))
    (True, 0.5, True)
    """
    if not callable(of):
        raise ConfigError(f"of={of!r} is not a schedule: give the name of one.")
    if positive("limit", limit, "it bounds the noise, as a share of the learning rate: below 1.") >= 1:
        raise ConfigError(
            f"limit={limit!r} is out of range: the noise stays below the learning rate, so give less than 1."
        )
    law = _law(kind, std, limit)
    key = _mixed(integer("seed", seed, "give a whole number from 0 on.", 0, _WORD) + _STEP)
    begin, end, schedule = max(horizon.updates(start, "start"), 1), horizon.span, of(horizon)

    def factor(t: int) -> float:
        value = schedule(t)
        if not begin <= t < end:
            return value
        return value * (1.0 + law(((_mixed(key + int(t) * _STEP) >> 12) + 0.5) * 2.0**-52))

    return annotate(factor, **{**annotations(schedule), "noise": (begin,)})


def _law(kind: str, std: float, limit: float) -> Callable[[float], float]:
    """From a uniform number in (0, 1) to one in (-limit, limit)."""
    if positive("std", std, "it is the deviation of the noise, as a share of the learning rate.") > 100:
        raise ConfigError(f"std={std!r} is above 100, where the noise is practically uniform: give kind=uniform.")
    if kind == "uniform":
        return lambda u: limit * (2.0 * u - 1.0)
    if kind != "normal":
        raise ConfigError(f"kind={kind!r} is not known: choose one of {', '.join(KINDS)}.")
    inside, quantile = math.erf(limit / std / math.sqrt(2)), NormalDist().inv_cdf
    return lambda u: std * quantile(0.5 + inside * (u - 0.5))


def _mixed(word: int) -> int:
    """64 bits that look random, one to one: the output of the generator SplitMix64 (Steele et al. 2014)."""
    word &= _WORD
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _WORD
    return word ^ (word >> 31)
