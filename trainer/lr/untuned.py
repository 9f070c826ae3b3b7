"""Warm-ups without a length to tune: it follows from the optimizer's β2, or they only approach 1.

W = 0: the schedule begins at the first update, and the warm-up multiplies it.
"""

import math

from trainer.lr.bounds import ConfigError, number
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.warmup import Warmup

_BETA2 = (
    "it is the optimizer's decay of the squared gradients, between 0 and 1 (Adam's is 0.999); "
    "for an optimizer without one choose another warm-up."
)
_SETTLED = 50.0
"""Time constants after which RAdam's factor is 1 as a float, for every β2."""


def saturating_warmup(horizon: Horizon, *, tau: Duration = "2.5%") -> Warmup:
    """w(t) = 1 - e^(-(t + 1) / tau): 0.63 after `tau` updates, 0.95 after 3 tau, 0.99 after 5 tau.

    Ma & Yarats 2019, arXiv:1910.04209. W = 0: the schedule begins at once.

    >>> [round(saturating_warmup(Horizon(100, 1), tau=10).factor(t), 6) for t in (0, 9, 49)]
    [0.095163, 0.632121, 0.993262]
    """
    length = horizon.updates(tau, "tau")
    return Warmup(0, lambda t: -math.expm1(-(t + 1) / length) if length else 1.0)


def untuned_linear_warmup(horizon: Horizon, *, beta2: float | None = None) -> Warmup:
    """w(t) = min(1, (t + 1) / N) with N = 2 / (1 - β2), rounded: 2000 updates for 0.999, 40 for 0.95.

    Ma & Yarats 2019, arXiv:1910.04209. W = 0: the schedule begins at once, and a run shorter than N ends during the
    warm-up. In a config, `beta2: null` is the optimizer's own; in Python it is refused. The ramp is the horizon's.

    >>> [untuned_linear_warmup(Horizon(100, 1), beta2=0.95).factor(t) for t in (0, 19, 39, 40)]
    [0.025, 0.5, 1.0, 1.0]
    """
    lead, end = horizon.convention.progress(round(2.0 / (1.0 - _decay(beta2))))
    return Warmup(0, lambda t: (t + lead) / end if t + lead < end else 1.0)


def untuned_exponential_warmup(horizon: Horizon, *, beta2: float | None = None) -> Warmup:
    """w(t) = 1 - e^(-(1 - β2) (t + 1)), which is close to Adam's own bias correction 1 - β2^(t + 1).

    Ma & Yarats 2019, arXiv:1910.04209. W = 0: the schedule begins at once. `beta2` as in `untuned_linear_warmup`.

    >>> [round(untuned_exponential_warmup(Horizon(100, 1), beta2=0.9).factor(t), 6) for t in (0, 9, 49)]
    [0.095163, 0.632121, 0.993262]
    """
    rate = 1.0 - _decay(beta2)
    return Warmup(0, lambda t: -math.expm1(-rate * (t + 1)))


def radam_warmup(horizon: Horizon, *, beta2: float | None = None) -> Warmup:
    """w(t) = √((ρ - 4) (ρ - 2) ρ∞ / ((ρ∞ - 4) (ρ∞ - 2) ρ)), the rectification of RAdam as a factor.

    ρ∞ = 2 / (1 - β2) - 1 and ρ = ρ∞ - 2n β2^n / (1 - β2^n) with n = t + d. RAdam has no such factor while ρ ≤ 4, so d
    is the first n where ρ > 4: 5 for β2 = 0.999, and never less, because ρ ≤ n. β2 must be above 0.6.

    Liu et al. 2019, arXiv:1908.03265; as a factor Ma & Yarats 2019, arXiv:1910.04209. W = 0: the schedule begins at
    once. `beta2` as in `untuned_linear_warmup`. For Adam; RAdam has it already.

    >>> [round(radam_warmup(Horizon(100, 1), beta2=0.999).factor(t), 4) for t in (0, 100, 1000)]
    [0.0173, 0.2209, 0.6466]
    """
    decay = _decay(beta2)
    rate, limit = -math.log(decay), (1.0 + decay) / (1.0 - decay)
    if decay <= 0.6 or limit <= 4.0:
        raise ConfigError(f"beta2={beta2!r} is too small for RAdam, which needs more than 0.6: choose another warm-up.")
    first = 5
    while limit - 2.0 * first / math.expm1(first * rate) <= 4.0:
        first += 1
    top = (limit - 4.0) * (1.0 - 2.0 / limit)

    def factor(t: int) -> float:
        n = t + first
        if n * rate > _SETTLED:
            return 1.0
        rho = limit - 2.0 * n / math.expm1(n * rate)
        return math.sqrt((rho - 4.0) * (1.0 - 2.0 / rho) / top)

    return Warmup(0, factor)


def auto_updates(horizon: Horizon, beta2: float | None) -> int:
    """The updates of a warm-up of `auto` length.

    For an optimizer with a β2 (Adam and its kind) 2 / (1 - β2), rounded, as in `untuned_linear_warmup`, but no more
    than 10 % of the run; without one (SGD) 5 % of the run: Goyal et al. 2017, arXiv:1706.02677, warm up for 5 epochs
    of 90. A very short run has none.

    >>> [auto_updates(Horizon(total, 1), 0.999) for total in (5, 1000, 100_000)], auto_updates(Horizon(1000, 1), None)
    ([0, 100, 2000], 50)
    """
    if beta2 is None:
        return (horizon.total + 10) // 20
    if number("beta2", beta2, _BETA2, low=0.0, high=1.0) == 1.0:
        raise ConfigError(f"beta2={beta2!r} is out of range: {_BETA2}")
    return min(round(2.0 / (1.0 - beta2)), horizon.total // 10)


def _decay(beta2: float | None) -> float:
    """`beta2` if it is a number above 0 and below 1."""
    value = number("beta2", beta2, _BETA2, low=0.0, high=1.0)
    if value in (0.0, 1.0):
        raise ConfigError(f"beta2={beta2!r} is out of range: {_BETA2}")
    return value
