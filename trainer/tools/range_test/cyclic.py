"""The base and the largest rate for cycles, from a linear rise and a score: Smith 2015, arXiv:1506.01186, sec. 3.3."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from trainer.lr.bounds import ConfigError
from trainer.lr.range_test import FIRST, Sweep, running_median

ROSE, FELL = 0.1, 0.1
"""The score has begun to rise after this share of its whole rise, and has begun to fall after this share lost."""


@dataclass(frozen=True)
class Bounds:
    """Between which rates to cycle, and the scores that speak for it."""

    base: float
    highest: float
    first: float
    best: float


def bounds(sweep: Sweep) -> Bounds:
    """`base` is where the score begins to rise, `highest` the last rate before it falls; refused where it does not."""
    scores = running_median(sweep.losses)
    first, best = median(sweep.losses[:FIRST]), max(scores)
    rise = best - first
    if len(scores) < 2 * FIRST or rise <= 0:
        raise ConfigError(f"--cyclic: the score does not rise from {first:.3g}: raise --cyclic-updates.")
    base = next(i for i, score in enumerate(scores) if score >= first + ROSE * rise)
    top = scores.index(best)
    fallen = [i for i in range(top, len(scores)) if scores[i] < best - FELL * rise]
    if not fallen and sweep.broke is None:
        raise ConfigError(
            f"--cyclic: the score still holds at the last rate, {sweep.rates[-1]:.3g}, twice the edge: "
            "raise --cyclic-updates, or take the bracket."
        )
    highest = sweep.rates[(fallen[0] if fallen else len(scores)) - 1]
    if base == 0 or not sweep.rates[base] < highest:
        raise ConfigError(
            "--cyclic: the score rises with the first rates, or only with the last: raise --cyclic-updates."
        )
    return Bounds(sweep.rates[base], highest, first, best)


def middle(found: Sequence[Bounds]) -> Bounds:
    """The median of the seeds, number by number."""
    return Bounds(*(median(getattr(one, name) for one in found) for name in ("base", "highest", "first", "best")))
