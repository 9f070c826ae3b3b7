"""What is read from sweeps: edges and suggestions, and the base and largest rate for cycles.

Momentum m is read as its memory, 1 / (1 - m) updates.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from trainer.lr.bounds import ConfigError
from trainer.lr.range_rules import Suggestion, suggestions
from trainer.lr.range_test import FIRST, Edge, Sweep, edge, middle_rate, running_median

ROSE, FELL = 0.1, 0.1
"""The score has begun to rise after this share of its whole rise, and has begun to fall after this share lost."""


def memory(momentum: float) -> float:
    """The updates over which a momentum averages: 1 / (1 - momentum)."""
    return 1.0 / (1.0 - momentum)


def momentum(memory: float) -> float:
    """The momentum of a memory; 0 below one update."""
    return max(0.0, 1.0 - 1.0 / memory)


def upper_bound(edges: Iterable[Edge], of: str) -> float:
    """The median of the edges; of momentum, the median of their memories."""
    rates = [one.rate for one in edges]
    return momentum(middle_rate([memory(rate) for rate in rates])) if of == "momentum" else middle_rate(rates)


def read_sweeps(sweeps: Sequence[Sweep], of: str) -> tuple[dict[int, Edge], dict[str, Suggestion]]:
    """The edge of each seed that has one, and the suggestions of the rules."""
    there: Callable[[float], float] = memory if of == "momentum" else float
    back: Callable[[float], float] = momentum if of == "momentum" else float
    spaced = [
        replace(one, rates=[there(rate) for rate in one.rates], broke=None if one.broke is None else there(one.broke))
        for one in sweeps
    ]
    edges: dict[int, Edge] = {}
    for one in spaced:
        try:
            seen = edge(one)
        except ConfigError:
            continue
        edges[one.seed] = replace(seen, best=back(seen.best), rate=back(seen.rate))
    suggested = {
        name: one
        if one.value is None or one.interval is None
        else replace(one, value=back(one.value), interval=(back(one.interval[0]), back(one.interval[1])))
        for name, one in suggestions(spaced).items()
    }
    return edges, suggested


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
