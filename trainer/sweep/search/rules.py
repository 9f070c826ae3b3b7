"""The rules of a search: how many trials it has, and what draws and ends them."""

from dataclasses import dataclass

from trainer.lr import ConfigError

SAMPLERS = ("tpe", "cmaes", "random", "qmc", "grid")
PRUNERS = ("none", "median", "asha", "hyperband")


@dataclass(frozen=True)
class Rules:
    """How many trials a search has, and what draws and ends them.

    `startup`: trials that are drawn at random before tpe or cmaes learns, and that end before median judges.
    `patience`: validations that each trial has. `reduction`: a rung of asha and hyperband lets the best of so many go
    on. `retries`: how often a trial is begun anew whose driver was lost.
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
