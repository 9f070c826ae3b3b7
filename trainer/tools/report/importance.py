"""How much of a metric each varied key explains: variance shares of a random forest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST, TREES, DRAWS = 16, 100, 200
"""Runs that a forest needs; its trees; the settings drawn to take variances over."""
EXPLAINED = 0.1


@dataclass(frozen=True)
class Importance:
    """The shares of the keys, each with the 10 % and 90 % quantiles over the trees, and R² out of the bag."""

    shares: Mapping[str, tuple[float, float, float]]
    explained: float
    runs: int


def importance(columns: Mapping[str, Sequence[Any]], costs: Sequence[float], seed: int = 0) -> Importance | str:
    """The main effect of each key on the rank of the cost, as a share of the variance; or why there is none to tell.

    As functional ANOVA on a forest (Hutter et al. 2014): a key's share is the variance of the forest's mean prediction
    over its values, the other keys drawn independently, divided by the variance over all. What is left belongs to
    interactions. Ranks, so that one run that blew up does not decide it. Each tree has a bootstrap sample, so the
    spread between trees says how much hangs on the runs there happen to be.
    """
    if len(columns) < 2:
        return "one key varies, and all differences are its own."
    if len(costs) < LEAST:
        return f"{len(costs)} runs are too few to tell: it takes {LEAST}."
    from scipy.stats import rankdata
    from sklearn.ensemble import RandomForestRegressor

    table = np.stack([_coded(values) for values in columns.values()], axis=1)
    ranks = rankdata(costs) / len(costs)
    forest = RandomForestRegressor(TREES, bootstrap=True, oob_score=True, random_state=seed, n_jobs=1)
    forest.fit(table, ranks)
    explained = float(forest.oob_score_)
    if explained < EXPLAINED:
        return f"a forest explains {max(0.0, explained):.0%} of the ranks of runs that it has not seen: too little."
    draws = np.random.default_rng(seed)
    background = np.stack([draws.choice(column, DRAWS) for column in table.T], axis=1)
    shares = np.array([_shares(tree, table, background) for tree in forest.estimators_])
    kept = shares[np.isfinite(shares).all(axis=1)]
    if not len(kept):
        return "the metric is the same in nearly all runs."
    quantiles = np.quantile(kept, [0.1, 0.9], axis=0)
    told = {
        key: (float(kept[:, i].mean()), float(quantiles[0, i]), float(quantiles[1, i])) for i, key in enumerate(columns)
    }
    return Importance(dict(sorted(told.items(), key=lambda item: -item[1][0])), explained, len(costs))


def _shares(tree: Any, table: np.ndarray, background: np.ndarray) -> list[float]:
    total = float(np.var(tree.predict(background)))
    return [_effect(tree, table[:, i], background, i) / total if total else float("nan") for i in range(table.shape[1])]


def _effect(tree: Any, column: np.ndarray, background: np.ndarray, i: int) -> float:
    """The variance of the tree's mean prediction over the values of a key, weighted as they occur."""
    values, found = np.unique(column, return_counts=True)
    counts = found.astype(float)
    if len(values) > 16:  # a search draws each value once: quantiles stand for them
        values = np.quantile(column, np.linspace(0.03, 0.97, 16))
        counts = np.ones(16)
    settings = np.repeat(background[None], len(values), axis=0)
    settings[:, :, i] = values[:, None]
    means = tree.predict(settings.reshape(-1, background.shape[1])).reshape(len(values), -1).mean(axis=1)
    middle = np.average(means, weights=counts)
    return float(np.average((means - middle) ** 2, weights=counts))


def _coded(values: Sequence[Any]) -> np.ndarray:
    """Numbers as they are, words by their place in the alphabet: a tree cuts anywhere."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return np.array(values, dtype=float)
    places = {word: i for i, word in enumerate(sorted({str(value) for value in values}))}
    return np.array([float(places[str(value)]) for value in values])
