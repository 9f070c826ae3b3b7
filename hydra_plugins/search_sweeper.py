"""Hydra sweeper `search`: looks for the best values with Optuna; each trial is a job of the launcher.

`python train.py -m hydra/sweeper=search optimizer.lr='interval(1e-4,1e-1)'`; see `docs/search.md`.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from trainer.cli.allow import allowed_by_environment
from trainer.cli.command import hydra_overrides, program_shown
from trainer.cli.dry_run import is_dry_run
from trainer.cli.extras import needed
from trainer.cli.hydra_internals import given_flags, store_option
from trainer.lr import ConfigError
from trainer.sweep.launcher import SweepLauncher
from trainer.sweep.search.rules import Rules, objectives

PLACES = "hydra.searchpath="
"""The setting of Hydra's that a run needs, too: where its options lie."""


@dataclass
class SearchSweeperConf:
    """The settings of `hydra.sweeper`.

    `params`: spaces by key, as on the command line. `when`: more of them for each condition on a choice, as
    optimizer=sgd: {optimizer.momentum: interval(0.8,0.99)}. `trials`: how many, over all drivers and restarts.
    `sampler`: tpe, cmaes, random, qmc or grid. `seed`: of the sampler. `startup`: trials drawn at random before tpe or
    cmaes learns, and ended before median judges. `pruner`: none, median, asha or hyperband. `patience`: validations
    before a pruner judges. `reduction`: asha and hyperband let one trial of so many go on. `metric`: the value that
    judges a job, as val/loss; several in a list. null: the monitor of the task. `direction`: min or max, for each
    metric. `storage`: null for a journal in the sweep's folder, or postgresql://USER@HOST/DATABASE for many machines.
    `heartbeat`: seconds between two signs of life there; after five times as long without one, a trial is started
    again. `retries`: how often, at most.
    """

    _target_: str = "hydra_plugins.search_sweeper.SearchSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    when: dict[str, Any] = field(default_factory=dict)
    trials: int = 20
    sampler: str = "tpe"
    seed: int = 0
    startup: int = 10
    pruner: str = "none"
    patience: int = 1
    reduction: int = 3
    metric: Any = None
    direction: Any = None
    storage: str | None = None
    heartbeat: int = 60
    retries: int = 3


store_option("hydra/sweeper", "search", SearchSweeperConf)


class SearchSweeper(Sweeper):
    """Asks a study for trials and gives them to the scheduler of the launcher."""

    def __init__(self, **settings: Any) -> None:
        conf = self.conf = SearchSweeperConf(**{name: _plain(value) for name, value in settings.items()})
        least = {"trials": 1, "startup": 0, "patience": 1, "reduction": 2, "heartbeat": 1, "retries": 0}
        for name, bound in least.items():
            if getattr(conf, name) < bound:
                raise ConfigError(f"hydra.sweeper.{name}={getattr(conf, name)} must be at least {bound}")
        needed("optuna", "hydra/sweeper=search")
        self.rules = Rules(**{rule.name: getattr(conf, rule.name) for rule in fields(Rules)})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives, with the launcher, which must be one of ours."""
        self.settings, self.context = config, hydra_context
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if not isinstance(launcher, SweepLauncher):
            raise ConfigError("hydra/sweeper=search observes its jobs while they run: take hydra/launcher=process")
        self.jobs = launcher

    def sweep(self, arguments: list[str]) -> None:
        """Search to the end."""
        from trainer.sweep.search.driver import Question, Search
        from trainer.sweep.search.search_space import parse_space

        parser = OverridesParser.create(self.context.config_loader)
        fixed, space = parse_space(self.conf.params, self.conf.when, arguments, parser)
        task = _plain(self.settings.get("task")) or {}
        allow = [*(self.settings.get("allow") or ()), *allowed_by_environment()]
        question = Question(fixed, space, *objectives(self.conf.metric, self.conf.direction, task, allow))
        search = Search(question, self.rules, self.settings, self.conf.storage, self.conf.heartbeat)
        if is_dry_run():
            search.check_first(self.jobs)
            return
        places = [word for word in hydra_overrides(self.settings.hydra) if word.lstrip("+").startswith(PLACES)]
        search.run(self.jobs, [*program_shown(given_flags()), *places])


def _plain(given: Any) -> Any:
    return OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
