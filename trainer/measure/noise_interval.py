"""The confidence interval of a measured noise scale."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from trainer.lr import ConfigError


@dataclass(frozen=True)
class Estimate:
    """|G|², tr(Σ) and their ratio tr(Σ) / |G|², B_simple in samples, each with its interval.

    `noise` and `high` are None where the interval of |G|² includes 0: the ratio is then not resolved, and `low` a lower
    bound, if there is one. `count` is the effective number of updates.
    """

    square: float
    square_low: float
    square_high: float
    trace: float
    trace_low: float
    trace_high: float
    noise: float | None
    low: float | None
    high: float | None
    count: float

    @property
    def resolved(self) -> bool:
        """Whether the interval of |G|² excludes 0."""
        return self.noise is not None

    def noise_scale(self) -> float:
        """B_simple. Refused where it is not resolved."""
        if self.noise is None:
            interval = f"|G|² = {self.square:.3g} lies in [{self.square_low:.3g}, {self.square_high:.3g}]"
            raise ConfigError(f"the noise scale is not resolved: {interval}: measure larger batches, or more updates.")
        return self.noise

    def needed(self) -> int | None:
        """About how many updates would put |G|² three half-widths above 0; None where its estimate is not positive."""
        half = self.square_high - self.square
        return math.ceil(self.count * (3 * half / self.square) ** 2) if self.square > 0 else None


def estimate(square: float, trace: float, covariance: list[list[float]], t: float, count: float) -> Estimate:
    """The estimate from the means of |G|² and tr(Σ) and their covariance; `t` is a half-width in standard errors."""
    (square_var, joint), (_, trace_var) = covariance
    square_half, trace_half = t * math.sqrt(square_var), t * math.sqrt(trace_var)
    ranges = (square, square - square_half, square + square_half, trace, trace - trace_half, trace + trace_half)
    if square - square_half <= 0:
        bounds = trace - trace_half, square + square_half
        return Estimate(*ranges, None, bounds[0] / bounds[1] if min(bounds) > 0 else None, None, count)
    a, b, c = square**2 - t**2 * square_var, square * trace - t**2 * joint, trace**2 - t**2 * trace_var
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Estimate(*ranges, trace / square, (b - root) / a, (b + root) / a, count)


def student(confidence: float, freedom: float) -> float:
    """The half-width of a two-sided interval in standard errors; Student's t, by the expansion of Cornish and Fisher.

    Abramowitz & Stegun 1964, 26.7.5. Within 1 % from 5 degrees of freedom on at 0.95; too narrow below.

    >>> round(student(0.95, 49), 4)  # the tables have 2.0096
    2.0096
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))
