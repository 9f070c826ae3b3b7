"""The settings of a search: how many trials it has, what draws and prunes them, and which metrics judge them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.config.metrics import direction_of
from trainer.lr import ConfigError

SAMPLERS = ("tpe", "cmaes", "random", "qmc", "grid")
PRUNERS = ("none", "median", "asha", "hyperband")


@dataclass(frozen=True)
class Rules:
    """How many trials a search has, and what draws and prunes them.

    `startup`: how many trials are drawn at random before tpe or cmaes learns, and end before median judges.
    `patience`: how many validations each trial has before it is judged. `reduction`: asha and hyperband let one trial
    of so many go on. `retries`: how often a trial is started again whose driver was lost.
    """

    trials: int
    sampler: str
    seed: int
    startup: int
    pruner: str
    patience: int
    reduction: int
    retries: int

    def __post_init__(self) -> None:
        for name, value, known in (("sampler", self.sampler, SAMPLERS), ("pruner", self.pruner, PRUNERS)):
            if value not in known:
                raise ConfigError(f"hydra.sweeper.{name}={value} is not known: choose one of {', '.join(known)}")


def objectives(metric: Any, direction: Any, task: Any, allow: Sequence[str] = ()) -> tuple[list[str], list[str]]:
    """The metrics and, for each, `min` or `max`; what is null comes from the task, and a contradiction is refused.

    >>> objectives(None, None, {"monitor": "loss", "mode": None})
    (['val/loss'], ['min'])
    """
    monitor = f"val/{task.get('monitor', 'loss')}"
    metrics = [monitor] if metric is None else metric if isinstance(metric, list) else [metric]
    if not metrics or not all(isinstance(one, str) and one for one in metrics) or len(set(metrics)) < len(metrics):
        raise ConfigError(f"hydra.sweeper.metric={metric} must name one metric, or several in a list, as val/loss")
    known = {one: direction_of(task, one, allow) for one in metrics}
    if direction is None:
        found = [known[one] or (task.get("mode") if one == monitor else None) for one in metrics]
        if None in found:
            raise ConfigError(
                f"hydra.sweeper.metric={metrics[found.index(None)]} has no known direction: "
                "give hydra.sweeper.direction=min or max"
            )
        return metrics, [str(one) for one in found]
    directions = direction if isinstance(direction, list) else [direction]
    if len(directions) != len(metrics) or not set(directions) <= {"min", "max"}:
        raise ConfigError(f"hydra.sweeper.direction={direction} must be min or max for each of {', '.join(metrics)}")
    for one, given in zip(metrics, directions):
        if known[one] not in (given, None):
            raise ConfigError(
                f"hydra.sweeper.direction={given}, but the better {one} is the {known[one]}imum: change it"
            )
    return metrics, directions
