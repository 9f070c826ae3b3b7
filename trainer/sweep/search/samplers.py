"""Samplers: what draws the values of a trial.

Each trial has a new sampler, made from the seed and the trial's number or slot: a search that goes on, or that two
drivers share, never draws the same numbers again.
"""

import itertools
import random
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler

from trainer.cli.extras import needed
from trainer.lr import ConfigError
from trainer.sweep.search.rules import Rules
from trainer.sweep.search.search_space import Space


class Fixed(BaseSampler):
    """Draws given values, by the name of the parameter."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, name: str, distribution: BaseDistribution) -> Any:
        return self.values[name]


def sampler(kind: str, space: Space, seed: int, number: int, slot: int, startup: int) -> BaseSampler:
    """The sampler for trial `number` in its slot; `startup`: how many trials tpe and cmaes draw at random."""
    own = random.Random(f"{seed} {number}").getrandbits(31)
    match kind:
        case "tpe":
            return TPESampler(seed=own, n_startup_trials=startup, multivariate=True, group=True)
        case "cmaes":
            independent = RandomSampler(seed=own)
            return CmaEsSampler(
                seed=own,
                n_startup_trials=max(1, startup),
                independent_sampler=independent,
                warn_independent_sampling=False,
            )
        case "qmc":
            return Fixed(sobol_point(space, seed, slot))
        case "grid":
            return Fixed(grid_points(space)[slot])
    return RandomSampler(seed=own)


def check_sampler(rules: Rules, space: Space, objectives: int) -> None:
    """Refuse a sampler that cannot draw from the space, and a pruner that cannot judge."""
    numbers = [one for one in space.parameters if not one.choices and one.when is None]
    if rules.sampler == "cmaes" and (objectives > 1 or len(numbers) < 2):
        why = "one metric" if objectives > 1 else "two numeric parameters or more without a condition"
        raise ConfigError(f"hydra.sweeper.sampler=cmaes needs {why}: take sampler=tpe")
    if rules.pruner != "none" and objectives > 1:
        raise ConfigError(f"hydra.sweeper.pruner={rules.pruner} judges by one metric: take none, or one metric")


def sobol_point(space: Space, seed: int, slot: int) -> dict[str, Any]:
    """Point `slot` of a scrambled Sobol sequence with a dimension for each parameter, conditional or not.

    Sobol, USSR Computational Mathematics 7 (1967); scrambled after Owen, J. Complexity 14 (1998).
    """
    qmc = needed("scipy.stats.qmc", "hydra.sweeper.sampler=sobol", "search")
    engine = qmc.Sobol(len(space.parameters), scramble=True, rng=seed)
    if slot:
        engine.fast_forward(slot)
    shares = engine.random(1)[0]
    return {one.name: one.at(min(float(u), 1 - 1e-12)) for one, u in zip(space.parameters, shares)}


def grid_points(space: Space) -> list[dict[str, Any]]:
    """All points of the space, the last parameter fastest; a conditional parameter counts only where it exists."""
    axes: list[list[tuple[str, Any]]] = []
    for one in space.parameters:
        if not one.choices and not (one.whole and not one.log) and one.step is None:
            raise ConfigError(
                f"hydra.sweeper.sampler=grid: {one} has no single values: give a choice, a range or logspace"
            )
        values: list[Any] = list(one.choices)
        if not values:
            step = one.step or 1
            count = int((one.high - one.low) / step + 1e-9) + 1
            values = [one.low + k * step for k in range(count)]
            values = [int(value) for value in values] if one.whole else values
        axes.append([(one.name, value) for value in values])
    distinct: dict[tuple[Any, ...], dict[str, Any]] = {}
    for point in map(dict, itertools.product(*axes)):
        distinct.setdefault(tuple(space.draw(_Reader(point)).items()), point)
    return list(distinct.values())


class _Reader:
    """Draws the values of a point."""

    def __init__(self, point: Mapping[str, Any]) -> None:
        self.point = point

    def suggest_float(self, name: str, *_: Any, **__: Any) -> float:
        return float(self.point[name])

    def suggest_int(self, name: str, *_: Any, **__: Any) -> int:
        return int(self.point[name])

    def suggest_categorical(self, name: str, *_: Any) -> Any:
        return self.point[name]
