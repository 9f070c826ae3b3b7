"""Seeds as repeats, and options compared by what they differ in at the same seeds: pure functions of numbers."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student


@dataclass(frozen=True)
class Repeats:
    """The values of one configuration under several seeds: n, mean, standard deviation (n - 1), standard error.

    `low` and `high` bound the mean by Student's t. One value has a mean only.
    """

    n: int
    mean: float
    std: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None


def repeats(values: Sequence[float], level: float = 0.95) -> Repeats:
    """Sum up one value or more.

    >>> repeats([1.0, 2.0, 3.0]).se
    0.5773502691896258
    """
    n, mean = len(values), fmean(values)
    if n < 2:
        return Repeats(n, mean)
    std = stdev(values)
    se = std / math.sqrt(n)
    reach = float(student.ppf((1 + level) / 2, n - 1)) * se
    return Repeats(n, mean, std, se, mean - reach, mean + reach)


def by_seed(pairs: Iterable[tuple[Hashable, float]]) -> dict[Hashable, float]:
    """A value for each seed: runs that are the same under the same seed are no repeats, and count by their mean.

    >>> by_seed([(0, 1.0), (1, 5.0), (0, 3.0)])
    {0: 2.0, 1: 5.0}
    """
    found: dict[Hashable, list[float]] = {}
    for seed, value in pairs:
        found.setdefault(seed, []).append(value)
    return {seed: fmean(values) for seed, values in found.items()}


Cells = Mapping[Hashable, Mapping[Hashable, float]]
"""The cost of an option by configuration (all that varies but the option and the seed), then by seed."""


@dataclass(frozen=True)
class Comparison:
    """How much worse `other` is than `option`, the best of all: differences of costs, paired by seed.

    `tuned`: each at its own best configuration. `grid`: mean over the `shared` configurations that both have under the
    same seeds, of which `option` is better in `wins`. `level` is that of each interval after Bonferroni: together
    they hold with 95 %.
    """

    option: str
    other: str
    tuned: Repeats | None
    grid: Repeats | None
    wins: int
    shared: int
    level: float


def compared(options: Mapping[str, Cells], level: float = 0.95) -> list[Comparison]:
    """Compare each option with the one whose best configuration has the least mean cost over its seeds."""
    bests = {name: chosen for name, cells in options.items() if (chosen := best(cells)) is not None}
    if len(bests) < 2:
        return []
    first = min(bests, key=lambda name: fmean(options[name][bests[name]].values()))
    others = [name for name in bests if name != first]
    each = 1 - (1 - level) / len(others)
    return [_pair(first, name, options, bests, each) for name in others]


def best(cells: Cells) -> Hashable | None:
    """The configuration of the least mean cost, among those that ran under the most seeds."""
    most = max(map(len, cells.values()), default=0)
    full = [cell for cell, values in cells.items() if len(values) == most and most]
    return min(full, key=lambda cell: fmean(cells[cell].values()), default=None)


def _pair(
    first: str, other: str, options: Mapping[str, Cells], bests: Mapping[str, Hashable], level: float
) -> Comparison:
    a, b = options[first], options[other]
    at_a, at_b = a[bests[first]], b[bests[other]]
    tuned = [at_b[seed] - at_a[seed] for seed in at_a if seed in at_b]
    both = {cell: a[cell].keys() & b[cell].keys() for cell in a if cell in b}
    most = max(map(len, both.values()), default=0)
    shared = [cell for cell, seeds in both.items() if most and len(seeds) == most]
    seeds = set.intersection(*(both[cell] for cell in shared)) if shared else set()
    rows = [fmean(b[cell][seed] - a[cell][seed] for cell in shared) for seed in seeds]
    wins = sum(fmean(b[cell][seed] - a[cell][seed] for seed in seeds) > 0 for cell in shared) if seeds else 0
    return Comparison(
        option=first,
        other=other,
        tuned=repeats(tuned, level) if tuned else None,
        grid=repeats(rows, level) if rows else None,
        wins=wins,
        shared=len(shared) if seeds else 0,
        level=level,
    )
