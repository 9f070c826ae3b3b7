"""A plateau rule that tests for a trend and is robust to single outliers."""

import math
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

from trainer.lr.bounds import ConfigError, integer, number
from trainer.lr.plateau import Plateau, Verdict


@dataclass
class TrendPlateau(Plateau):
    """plateau(t) times `factor` where the last `window` validations do not improve with `confidence`.

    The one-sided test of Mann 1945 and Kendall for a trend: with S the pairs of validations of which the later one is
    better, less those of which it is worse, p = 1 - Φ((S - 1) / √V) with V = (n(n-1)(2n+5) - Σ k(k-1)(2k+5)) / 18,
    where n is `window` and each k is a number of equal values. It reduces when p > 1 - confidence, and then empties
    the window. Only the order of the values counts, so a single outlier has little weight. A window of 15 detects a
    fall of half the noise's σ per validation; a longer window detects a slower fall.

    >>> rule = TrendPlateau(window=5)
    >>> [rule.observe(loss, t) for t, loss in enumerate((5.0, 4.0, 3.0, 2.0, 1.0))]
    [None, None, None, None, None]
    >>> rule.observe(6.0, 5)
    'plateau: val/loss does not surely fall over 5 validations (p = 0.4), factor 1 -> 0.1'
    """

    window: int = 15
    confidence: float = 0.95

    _memory = ("costs",)

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("window", self.window, "it is a number of validations, from 2 to 1000.", low=2, high=1000)
        number("confidence", self.confidence, "it is how sure an improvement must be, 0.5 to 0.9999.", 0.5, 0.9999)
        if chance([float(-i) for i in range(self.window)]) > 1.0 - self.confidence:
            raise ConfigError(
                f"window={self.window} is too short: even an improvement at each validation is then not "
                f"{100 * self.confidence:g} % sure. Lengthen it, or lower confidence."
            )
        self.costs: list[float] = []

    def _judge(self, cost: float, t: int) -> Verdict | None:
        self.costs = [*self.costs, cost][-self.window :]
        if len(self.costs) < self.window:
            return None
        p = chance(self.costs)
        if p <= 1.0 - self.confidence:
            return None
        self.costs = []
        way = "fall" if self.mode == "min" else "rise"
        return self._lower(), f"does not surely {way} over {self.window} validations (p = {p:.2g})"


def chance(series: list[float]) -> float:
    """p: how probably a series without a trend would fall as clearly as this one, by the Mann-Kendall test.

    >>> round(chance([5.0, 4.0, 3.0, 2.0, 1.0]), 4), chance([1.0, 1.0, 1.0])
    (0.0137, 1.0)
    """
    n, score = len(series), sum((a > b) - (a < b) for a, b in combinations(series, 2))
    ties = sum(k * (k - 1) * (2 * k + 5) for k in map(series.count, set(series)))
    spread = math.sqrt((n * (n - 1) * (2 * n + 5) - ties) / 18)
    return 1.0 - NormalDist().cdf((score - 1) / spread) if spread else 1.0
