"""A driver of a search, which runs trials and reports the best. Several drivers may share a study."""

import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from optuna.storages import InMemoryStorage

from trainer.cli.override import key_of
from trainer.lr import ConfigError
from trainer.sweep.launcher import MakeJob, SweepLauncher
from trainer.sweep.scheduler import Scheduler
from trainer.sweep.search.rules import Rules
from trainer.sweep.search.samplers import check_sampler, grid_points
from trainer.sweep.search.search_space import Space
from trainer.sweep.search.storage import database, journal, open_study
from trainer.sweep.search.study import Study
from trainer.sweep.search.trials import Trials, overrides_of, search_summary
from trainer.sweep.summary import SUMMARY, SweepFailed, print_table

JOURNAL = "study.journal"
NOT_OF_A_RUN = ("name", "resume", "resume.path", "sweep")
LEARNING = ("tpe", "cmaes")


@dataclass(frozen=True)
class Question:
    """What is searched: the overrides that all trials share, the space, and the metrics with their directions."""

    fixed: Sequence[str]
    space: Space
    metrics: Sequence[str]
    directions: Sequence[str]

    def __str__(self) -> str:
        """The objective in words."""
        return " and ".join(f"the {d}imum of {m}" for m, d in zip(self.metrics, self.directions))

    def identity(self) -> dict[str, list[str]]:
        """What must stay the same when a search is started again."""
        return {
            "space": [str(parameter) for parameter in self.space.parameters],
            "metric": [f"{direction} {metric}" for metric, direction in zip(self.metrics, self.directions)],
            "settings": sorted(word for word in self.fixed if key_of(word) not in NOT_OF_A_RUN),
        }


@dataclass
class Search:
    """One driver of a search. `config`: Hydra's, of the sweep; `storage`: the URL of a database, None for a journal."""

    question: Question
    rules: Rules
    config: DictConfig
    storage: str | None
    heartbeat: int
    study: Study = field(init=False)

    def __post_init__(self) -> None:
        check_sampler(self.rules, self.question.space, len(self.question.metrics))
        if self.rules.sampler == "grid":
            self.rules = replace(self.rules, trials=len(grid_points(self.question.space)))

    def run(self, launcher: SweepLauncher, program: Sequence[str]) -> None:
        """Search to the end; a search that was stopped goes on with resume=auto.

        Raises:
            SweepFailed: trials have failed.
        """
        self._announce(launcher.limits.slots)
        scheduler = launcher.search(self._roots(), self._start)
        fixed = [word for word in self.question.fixed if key_of(word) not in NOT_OF_A_RUN]
        scheduler.search = search_summary(self.study, self.question.metrics, program, fixed)
        scheduler.write()
        print_table(scheduler.jobs, scheduler.root)
        scheduler.exit_if_stopped()
        summary = scheduler.search["search"]
        self._print_best(summary)
        if summary["failed"]:
            names = ", ".join(f"trial {number}" for number in summary["failed"])
            count = f"{len(summary['failed'])} of {sum(summary['trials'].values())} trials failed"
            raise SweepFailed(f"{count}: {names}; see {scheduler.root / SUMMARY}")

    def check_first(self, launcher: SweepLauncher) -> None:
        """Make a dry run of the first trial alone: the values of later ones follow from results. Nothing is kept."""
        self._announce(launcher.limits.slots)
        storage, question = InMemoryStorage(), self.question
        made = open_study(storage, "dry run", question.directions, question.identity())
        study = Study(made, storage, question.space, self.rules, "")
        trial = study.ask()
        assert trial is not None
        launcher.launch([[*question.fixed, *overrides_of(study.draw(trial))]], 0)
        print("this was the first trial; the values of others follow from results, or from hydra.sweeper.sampler")

    def _roots(self) -> Iterator[Path]:
        """The folders that this driver may have; a shared study leaves room for other drivers."""
        root = Path(str(self.config.hydra.sweep.dir)).resolve()
        if self.storage is None:
            yield root
            return
        given = [*self.config.hydra.overrides.task, *self.config.hydra.overrides.hydra]
        if not any(word.startswith(("name=", "hydra.sweep.dir=")) for word in given):
            raise ConfigError(
                "hydra.sweeper.storage is shared by the searches of one name: give it, as in name=lr-search"
            )
        for number in range(1, 1000):
            yield root / f"on-{socket.gethostname()}{f'-{number}' if number > 1 else ''}"

    def _start(self, scheduler: Scheduler, make_job: MakeJob) -> Trials:
        """The trials of the study; writes nothing before a config has been composed with each choice."""
        root, question = scheduler.root, self.question
        resumes = (self.config.get("resume") or {}).get("path") == "auto"
        if not resumes and (scheduler.previous.records or (root / JOURNAL).exists()):
            raise ConfigError(f"{root} holds a search already: give another name, or go on with it by resume=auto")
        for parameter in question.space.parameters:
            condition = [f"{parameter.when.key}={parameter.when.values[0]}"] if parameter.when else []
            for value in parameter.choices or (parameter.at(0.0),):
                make_job(0, [*question.fixed, *condition, f"{parameter.key}={value}"])
        kept = self.config.copy()
        with read_write(kept.hydra.job), open_dict(kept.hydra.job):
            kept.hydra.job.env_set = {}  # Hydra has copied variables of the environment into it
        OmegaConf.save(kept, root / "multirun.yaml")
        storage = database(self.storage, self.heartbeat) if self.storage else journal(root / JOURNAL)
        name = (root.parent if self.storage else root).name
        study = open_study(storage, name, question.directions, question.identity())
        self.study = Study(study, storage, question.space, self.rules, f"{socket.gethostname()}:{root}")
        return Trials(self.study, scheduler, make_job, question.fixed, question.metrics)

    def _announce(self, slots: int) -> None:
        rules = self.rules
        print(f"search: {rules.trials} trials by {rules.sampler} for {self.question}")
        for parameter in self.question.space.parameters:
            print(f"  {parameter}")
        if rules.sampler in LEARNING and 1 < rules.trials <= slots:
            at_once = f"all {rules.trials} trials start at once, and {rules.sampler} learns from none"
            print(f"{at_once}: lower hydra.launcher.jobs")
        sys.stdout.flush()

    def _print_best(self, summary: dict[str, Any]) -> None:
        print("trials: " + ", ".join(f"{count} {state}" for state, count in summary["trials"].items()))
        for best in summary["best"]:
            values = ", ".join(f"{metric} {value:.6g}" for metric, value in best["values"].items())
            print(f"best: trial {best['number']}, {values}: {best['command']}")
        sys.stdout.flush()
