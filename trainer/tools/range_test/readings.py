"""What is read from sweeps: where training breaks, and the base and largest rate for cycles.

Momentum m is read as its memory, 1 / (1 - m) updates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from trainer.lr.bounds import ConfigError
from trainer.lr.range_rules import agreed_edge, edges
from trainer.lr.range_test import FIRST, Sweep, running_median

ROSE, FELL = 0.1, 0.1
"""The score has begun to rise after this share of its whole rise, and has begun to fall after this share lost."""


def memory(momentum: float) -> float:
    """The updates over which a momentum averages: 1 / (1 - momentum)."""
    return 1.0 / (1.0 - momentum)


def momentum(memory: float) -> float:
    """The momentum of a memory; 0 below one update."""
    return max(0.0, 1.0 - 1.0 / memory)


def upper_bound(sweeps: Sequence[Sweep], of: str) -> float:
    """The median of the edges; of momentum, the median of their memories.

    Raises:
        ConfigError: the seeds have no edge, or disagree.
    """
    if of != "momentum":
        return agreed_edge(*edges(sweeps), len(sweeps))
    try:
        return momentum(agreed_edge(*edges([_by_memory(one) for one in sweeps]), len(sweeps)))
    except ConfigError as reason:
        raise ConfigError(f"{reason} (Momentum m is read as its memory, 1 / (1 - m).)") from reason


def _by_memory(sweep: Sweep) -> Sweep:
    """A sweep of the momentum, by its memory."""
    broke = None if sweep.broke is None else memory(sweep.broke)
    return replace(sweep, rates=[memory(rate) for rate in sweep.rates], broke=broke)


@dataclass(frozen=True)
class CycleBounds:
    """The base and the largest rate of cycles, and the first and the best score (Smith 2015, arXiv:1506.01186, 3.3)."""

    base: float
    highest: float
    first: float
    best: float


def cycle_bounds(sweep: Sweep) -> CycleBounds:
    """`base` is where the score begins to rise, `highest` the last rate before it falls.

    Raises:
        ConfigError: the score does not rise, or still holds at the last rate.
    """
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
    return CycleBounds(sweep.rates[base], highest, first, best)


def median_bounds(found: Sequence[CycleBounds]) -> CycleBounds:
    """The median of the seeds, number by number."""
    return CycleBounds(*(median(getattr(one, name) for one in found) for name in ("base", "highest", "first", "best")))
