"""Hydra sweeper `search`: looks for the best values with Optuna, each trial a job of the process launcher.

`python train.py -m hydra/sweeper=search optimizer.lr='interval(1e-4,1e-1)'`; `docs/search.md` tells the rest.
"""

import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.process_launcher import Make, ProcessLauncher
from trainer.cli.command import program_shown
from trainer.cli.extras import needed
from trainer.cli.hydra_internals import given_flags, store_option
from trainer.lr import ConfigError
from trainer.sweep import summary as sweep
from trainer.sweep.scheduler import Scheduler
from trainer.sweep.search.objectives import goals
from trainer.sweep.search.rules import Rules

if TYPE_CHECKING:
    from trainer.sweep.search.trials import Trials

JOURNAL = "study.journal"
NOT_OF_A_RUN = ("name", "resume", "resume.path", "sweep")


@dataclass
class SearchSweeperConf:
    """The settings of `hydra.sweeper`.

    `params`: spaces by key, as on the command line. `when`: more of them for each condition on a choice, as
    optimizer=sgd: {optimizer.momentum: interval(0.8,0.99)}. `trials`: how many, over all drivers and restarts.
    `sampler`: tpe, cmaes, random, qmc or grid. `startup`: trials drawn at random before tpe or cmaes learns, and ended
    before median judges. `pruner`: none, median, asha or hyperband. `patience`: validations that no pruner touches.
    `reduction`: of so many trials, asha and hyperband let the best go on. `metric`: what a job is judged by, val/loss;
    several in a list. null: the monitor of the task. `direction`: min or max, for each metric. `storage`: null for a
    journal in the sweep's folder, or postgresql://USER@HOST/DATABASE for many machines. `heartbeat`: seconds between
    two signs of life there; after five times that a trial is begun anew, `retries` times at most.
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
    """Asks a study for trials and gives them to the crew of the process launcher."""

    def __init__(
        self,
        params: Any,
        when: Any,
        trials: int,
        sampler: str,
        seed: int,
        startup: int,
        pruner: str,
        patience: int,
        reduction: int,
        metric: Any,
        direction: Any,
        storage: str | None,
        heartbeat: int,
        retries: int,
    ) -> None:
        least = {"trials": 1, "startup": 0, "patience": 1, "reduction": 2, "heartbeat": 1, "retries": 0}
        for name, value in zip(least, (trials, startup, patience, reduction, heartbeat, retries)):
            if value < least[name]:
                raise ConfigError(f"hydra.sweeper.{name}={value} must be at least {least[name]}")
        needed("optuna", "hydra/sweeper=search")
        self.params, self.when = _plain(params), _plain(when)
        self.metric, self.direction, self.storage, self.heartbeat = (
            _plain(metric),
            _plain(direction),
            storage,
            heartbeat,
        )
        self.rules = Rules(trials, sampler, seed, startup, pruner, patience, reduction, retries)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives, with the launcher, which must be ours."""
        self.settings, self.context = config, hydra_context
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if type(launcher) is not ProcessLauncher:
            raise ConfigError("hydra/sweeper=search watches its jobs while they run: take hydra/launcher=process")
        self.process = launcher

    def sweep(self, arguments: list[str]) -> None:
        """Search to the end; what is left of a search that was stopped goes on with resume=auto."""
        from trainer.sweep.search.samplers import check, points
        from trainer.sweep.search.search_space import space
        from trainer.sweep.search.trials import summary

        parser = OverridesParser.create(self.context.config_loader)
        self.fixed, self.space = space(self.params, self.when, arguments, parser)
        self.metrics, self.directions = goals(self.metric, self.direction, self.settings.get("task") or {})
        check(self.rules, self.space, len(self.metrics))
        if self.rules.sampler == "grid":
            self.rules = replace(self.rules, trials=len(points(self.space)))
        self._tell()
        crew = self.process.pursue(self._roots(), self._feed)
        own = [word for word in self.fixed if word.partition("=")[0].lstrip("+") not in NOT_OF_A_RUN]
        crew.about = summary(self.study, self.metrics, program_shown(given_flags()), own)
        crew.write()
        sweep.show(crew.done, crew.root)
        crew.leave_if_stopped()
        self._tell_best(told := crew.about["search"])
        if told["failed"]:
            names = ", ".join(f"trial {number}" for number in told["failed"])
            count = f"{len(told['failed'])} of {sum(told['trials'].values())} trials failed"
            raise sweep.SweepFailed(f"{count}: {names}; see {crew.root / sweep.SUMMARY}")

    def _roots(self) -> Iterator[Path]:
        """Where this driver may have its folder; a study that is shared leaves room for others."""
        root = Path(str(self.settings.hydra.sweep.dir)).resolve()
        if self.storage is None:
            yield root
            return
        if not any(word.startswith(("name=", "hydra.sweep.dir=")) for word in self._given()):
            raise ConfigError(
                "hydra.sweeper.storage is shared by the searches of one name: give it, as in name=lr-search"
            )
        for number in range(1, 1000):
            yield root / f"on-{socket.gethostname()}{f'-{number}' if number > 1 else ''}"

    def _given(self) -> list[str]:
        return [*self.settings.hydra.overrides.task, *self.settings.hydra.overrides.hydra]

    def _feed(self, crew: Scheduler, make: Make) -> "Trials":
        """The trials of the study; nothing is written before each choice was seen to make a config."""
        from trainer.sweep.search.storage import database, journal, opened
        from trainer.sweep.search.study import Study
        from trainer.sweep.search.trials import Trials

        root = crew.root
        go_on = (self.settings.get("resume") or {}).get("path") == "auto"
        if not go_on and (crew.past.rest or (root / JOURNAL).exists()):
            raise ConfigError(f"{root} holds a search already: give another name, or go on with it by resume=auto")
        for parameter in self.space.parameters:
            condition = [f"{parameter.when.key}={parameter.when.values[0]}"] if parameter.when else []
            for value in parameter.choices or (parameter.at(0.0),):
                make(0, [*self.fixed, *condition, f"{parameter.key}={value}"])
        OmegaConf.save(self.settings, root / "multirun.yaml")
        storage = database(self.storage, self.heartbeat) if self.storage else journal(root / JOURNAL)
        told = {
            "space": [str(parameter) for parameter in self.space.parameters],
            "metric": [f"{d} {m}" for m, d in zip(self.metrics, self.directions)],
            "settings": sorted(w for w in self.fixed if w.partition("=")[0] not in NOT_OF_A_RUN),
        }
        name = (root.parent if self.storage else root).name
        study = opened(storage, name, self.directions, told)
        self.study = Study(study, storage, self.space, self.rules, f"{socket.gethostname()}:{root}")
        return Trials(self.study, crew, make, self.fixed, self.metrics)

    def _tell(self) -> None:
        goal = " and ".join(f"the {d}imum of {m}" for m, d in zip(self.metrics, self.directions))
        print(f"search: {self.rules.trials} trials by {self.rules.sampler} for {goal}")
        for parameter in self.space.parameters:
            print(f"  {parameter}")
        sys.stdout.flush()

    def _tell_best(self, told: dict[str, Any]) -> None:
        print("trials: " + ", ".join(f"{count} {state}" for state, count in told["trials"].items()))
        for best in told["best"]:
            values = ", ".join(f"{metric} {value:.6g}" for metric, value in best["values"].items())
            print(f"best: trial {best['number']}, {values}: {best['command']}")
        sys.stdout.flush()


def _plain(given: Any) -> Any:
    return OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
