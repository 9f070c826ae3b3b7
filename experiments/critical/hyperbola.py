"""The law of the critical batch: y(B) = y∞ (1 + N/B)^±a, fitted in logarithms."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from experiments.critical.race import Best
from trainer.lr import ConfigError


@dataclass(frozen=True)
class Fit:
    """y(B) = limit · (1 + batch / B)^power; `error` is the root mean square of ln(measured / y)."""

    limit: float
    batch: float
    power: float
    error: float

    def __call__(self, batch: float) -> float:
        return self.limit * (1 + self.batch / batch) ** self.power


@dataclass(frozen=True)
class CriticalBatch:
    """Estimates of the critical batch of one target, in samples: by the `steps`, the best `rate`, the noise scale."""

    target: float
    best: Mapping[int, Best]
    steps: Fit
    rate: Fit
    free: Fit
    exact: float
    estimated: float
    misstated: float

    def apart(self, simple: float) -> float:
        """The largest of the three estimates over the smallest, with `simple` for the noise scale."""
        estimates = (self.steps.batch, self.rate.batch, simple)
        return max(estimates) / min(estimates)


def fit(points: Mapping[int, float], power: float) -> Fit:
    """The least squares of log y over `batch`, to 1/64 of an octave from 1/4 to 2^16; `limit` follows from it.

    Updates to a loss have power 1, McCandlish et al. 2018, arXiv:1812.06162, equation 2.11 with E = B·S; the best
    learning rate has power -1, their equation 2.4. Refused for fewer than three points, or one that is not positive.

    >>> round(fit({b: 7 * (1 + 100 / b) for b in (2, 16, 128, 1024)}, 1).batch)
    100
    """
    if len(points) < 3 or not all(0 < y < math.inf for y in points.values()):
        raise ConfigError(
            f"a hyperbola through {dict(points)}: it needs three points or more, all positive and finite."
        )
    low, high, step = -2.0, 16.0, 0.5
    while True:
        octaves = [low + step * i for i in range(round((high - low) / step) + 1)]
        octave, found = min(((k, _limit(points, 2.0**k, power)) for k in octaves), key=lambda one: one[1].error)
        if step == 1 / 64:
            return found
        low, high, step = max(-2.0, octave - step), min(16.0, octave + step), step / 2


def free(points: Mapping[int, float]) -> Fit:
    """The same with the power free, from -2 to 0 in steps of 0.01."""
    return min((fit(points, -k / 100) for k in range(20, 201, 2)), key=lambda found: found.error)


def _limit(points: Mapping[int, float], noise: float, power: float) -> Fit:
    """The fit for this batch: in logarithms, its limit is a mean."""
    apart = [math.log(y) - power * math.log1p(noise / batch) for batch, y in points.items()]
    mean = sum(apart) / len(apart)
    return Fit(math.exp(mean), noise, power, math.sqrt(sum((one - mean) ** 2 for one in apart) / len(apart)))
