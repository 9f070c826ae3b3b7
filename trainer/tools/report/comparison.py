"""What explains differences between runs: repeats, options paired by seed and fold, importances of settings."""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, TypeVar

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student

from trainer.cli.extras import needed
from trainer.tools.run_folders import value_order

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

RUNS_NEEDED, TREES = 16, 32
"""Runs that importances need, and the trees that they are the mean over."""
EXPLAINED = 0.1
"""The least R² on runs that the forest has not seen."""


@dataclass(frozen=True)
class Repeats:
    """The values of one configuration under several seeds or folds.

    `std` divides by n - 1, and `se` is the standard error. `low` and `high` bound the mean by Student's t. A single
    value has only a mean.
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


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """The values under each key, in the order of the pairs.

    >>> grouped([("a", 1), ("b", 5), ("a", 3)])
    {'a': [1, 3], 'b': [5]}
    """
    groups: dict[K, list[V]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def by_repeat(pairs: Iterable[tuple[Hashable, float]]) -> dict[Hashable, float]:
    """One value for each seed and fold. Runs that have both in common are no repeats and count by their mean.

    >>> by_repeat([(0, 1.0), (1, 5.0), (0, 3.0)])
    {0: 2.0, 1: 5.0}
    """
    return {repeat: fmean(same) for repeat, same in grouped(pairs).items()}


Costs = Mapping[Any, Mapping[Hashable, float]]
"""The cost of an option by configuration (all that varies but the option and the seed), then by seed."""


@dataclass(frozen=True)
class Comparison:
    """How much worse `other` is than `option`, the best of all: differences of costs, paired by seed.

    `tuned`: each at its own best configuration. `grid`: mean over the `shared` configurations that both have under the
    same seeds; `option` is better in `wins` of them. `level` is that of each interval after Bonferroni: together they
    hold with 95 %.
    """

    option: str
    other: str
    tuned: Repeats | None
    grid: Repeats | None
    wins: int
    shared: int
    level: float


def compare_options(options: Mapping[str, Costs], level: float = 0.95) -> list[Comparison]:
    """Compare each option with the one whose best configuration has the least mean cost over its seeds."""
    bests = {name: at for name, costs in options.items() if (at := best_configuration(costs)) is not None}
    if len(bests) < 2:
        return []
    first = min(bests, key=lambda name: fmean(options[name][bests[name]].values()))
    others = [name for name in bests if name != first]
    each = 1 - (1 - level) / len(others)
    return [_compare_pair(first, name, options, bests, each) for name in others]


def best_configuration(costs: Costs) -> Hashable | None:
    """The configuration of the least mean cost, among those that ran under the most seeds."""
    most = max(map(len, costs.values()), default=0)
    full = [at for at, values in costs.items() if len(values) == most and most]
    return min(full, key=lambda at: fmean(costs[at].values()), default=None)


def _compare_pair(
    first: str, other: str, options: Mapping[str, Costs], bests: Mapping[str, Hashable], level: float
) -> Comparison:
    a, b = options[first], options[other]
    tuned = list(_differences(a[bests[first]], b[bests[other]]).values())
    both = [_differences(a[at], b[at]) for at in a if at in b]
    most = max(map(len, both), default=0)
    shared = [of for of in both if most and len(of) == most]
    seeds = set(shared[0]).intersection(*shared[1:]) if shared else set()
    rows = [fmean(of[seed] for of in shared) for seed in seeds]
    return Comparison(
        option=first,
        other=other,
        tuned=repeats(tuned, level) if tuned else None,
        grid=repeats(rows, level) if rows else None,
        wins=sum(fmean(of[seed] for seed in seeds) > 0 for of in shared) if seeds else 0,
        shared=len(shared) if seeds else 0,
        level=level,
    )


def _differences(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> dict[Hashable, float]:
    return {seed: b[seed] - a[seed] for seed in a if seed in b}


@dataclass(frozen=True)
class Importance:
    """The main effect of each setting as a share of the variance, with the 10 % and 90 % quantiles over the trees.

    `explained` is the R² of the forest on runs that it has not seen.
    """

    shares: Mapping[str, tuple[float, float, float]]
    explained: float


def importance(columns: Mapping[str, Sequence[Any]], costs: Sequence[float]) -> Importance | str:
    """The main effect of each setting on the rank of the cost (functional ANOVA); or why there is nothing to say.

    Optuna's fANOVA evaluator fits trees to the runs and integrates them over the settings (Hutter et al. 2014,
    proceedings.mlr.press/v32/hutter14.html). Every value that was tried has the same weight, whatever its distance to
    the next. What the shares leave of the variance belongs to interactions. Ranks, so that one run that blew up does
    not decide the result. Each tree sees a bootstrap sample of the runs, so the spread between trees shows how much
    depends on single runs.

    Raises:
        ConfigError: Optuna or scikit-learn is not installed.
    """
    if len(columns) < 2:
        return "only one setting varies, and all differences are due to it."
    if len(costs) < RUNS_NEEDED:
        return f"{len(costs)} runs are too few: it takes {RUNS_NEEDED}."
    optuna = needed("optuna", "the importance of settings")
    ensemble = needed("sklearn.ensemble", "the importance of settings")
    ranks = [float(rank) / len(costs) for rank in rankdata(costs)]
    coded = {key: _positions(values) for key, values in columns.items()}
    forest = ensemble.RandomForestRegressor(TREES, oob_score=True, random_state=0)
    explained = float(forest.fit(np.stack(list(coded.values()), axis=1), ranks).oob_score_)
    if explained < EXPLAINED:
        return f"a forest explains {max(0.0, explained):.0%} of the ranks of runs that it has not seen: too little."
    trees = _shares_by_tree(optuna, coded, ranks)
    if not trees:
        return "the metric is the same in nearly all runs."
    by_key = {key: [tree[key] for tree in trees] for key in columns}
    ordered = sorted(columns, key=lambda key: -fmean(by_key[key]))
    shares = {key: (fmean(by_key[key]), *np.quantile(by_key[key], [0.1, 0.9]).tolist()) for key in ordered}
    return Importance(shares, explained)


def _shares_by_tree(
    optuna: Any, columns: Mapping[str, Sequence[float]], ranks: Sequence[float]
) -> list[dict[str, float]]:
    """Optuna's shares for forests of one tree each: their mean is the share of the forest."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, Any] = {
        key: optuna.distributions.FloatDistribution(-0.5, max(places) + 0.5) for key, places in columns.items()
    }
    study = optuna.create_study()
    rows = [dict(zip(columns, places)) for places in zip(*columns.values())]
    study.add_trials(
        [optuna.create_trial(params=row, distributions=space, value=rank) for row, rank in zip(rows, ranks)]
    )
    trees = []
    for seed in range(TREES):
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=1, seed=seed)
        try:
            trees.append(evaluator.evaluate(study))
        except RuntimeError:  # the tree is a leaf: its bootstrap sample has one value
            continue
    return trees


def _positions(values: Sequence[Any]) -> list[float]:
    """The position of each value in the order of all. The trees split between positions, which have equal weights."""
    places = {level: float(i) for i, level in enumerate(sorted(set(values), key=value_order))}
    return [places[value] for value in values]
