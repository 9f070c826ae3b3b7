"""A study of N trials, of one driver or many: it gives the next trial, takes its outcome, and counts each one once.

A search of N trials has N slots. The first N fresh trials have one each, in the order of their numbers, which the
storage gives out one by one. So two drivers that ask for the last one at the same time agree whose it is, and the
other's trial is surplus. A trial whose driver was killed is lost; the first trial that replaces it has its slot.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from trainer.sweep.search.rules import Rules
from trainer.sweep.search.samplers import sampler
from trainer.sweep.search.search_space import Space

STATES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
}
SURPLUS = "surplus"


@dataclass(frozen=True)
class Entry:
    """A trial: `state` is waiting, running, complete, pruned, failed or lost; it may replace one that was lost."""

    number: int
    state: str
    replaces: int | None = None


def slots(entries: Sequence[Entry], trials: int) -> dict[int, int]:
    """The slot of each trial that counts, by its number; trials that are not here are surplus."""
    held: dict[int, int] = {}
    taken: set[int] = set()
    fresh = 0
    for entry in sorted(entries, key=lambda entry: entry.number):
        if entry.replaces is None:
            if fresh < trials:
                held[entry.number] = fresh
                fresh += 1
        elif entry.replaces in held and entry.replaces not in taken:
            taken.add(entry.replaces)
            held[entry.number] = held[entry.replaces]
    return held


def newest(entries: Sequence[Entry], trials: int) -> dict[int, Entry]:
    """The last trial of each slot, which is the one that counts."""
    held = slots(entries, trials)
    return {held[e.number]: e for e in sorted(entries, key=lambda e: e.number) if e.number in held}


def to_replace(entries: Sequence[Entry], trials: int, retries: int) -> list[int]:
    """The lost trials that nothing has replaced yet, and whose slot was replaced fewer than `retries` times."""
    held = slots(entries, trials)
    tried = list(held.values())
    last = newest(entries, trials)
    return [e.number for slot, e in sorted(last.items()) if e.state == "lost" and tried.count(slot) <= retries]


def ended(entries: Sequence[Entry], trials: int, retries: int) -> bool:
    """Whether every slot has ended, so that nothing is left to do or to wait for."""
    last = newest(entries, trials)
    again = set(to_replace(entries, trials, retries))
    over = [e for e in last.values() if e.state not in ("waiting", "running") and e.number not in again]
    return len(over) == trials


def pruner(rules: Rules) -> BasePruner:
    """The pruner of the rules; a step is a validation of the run."""
    match rules.pruner:
        case "none":
            return NopPruner()
        case "median":
            return MedianPruner(n_startup_trials=rules.startup, n_warmup_steps=rules.patience)
        case "asha":
            return SuccessiveHalvingPruner(min_resource=rules.patience, reduction_factor=rules.reduction)
        case "hyperband":
            return HyperbandPruner(min_resource=rules.patience, reduction_factor=rules.reduction)
    raise AssertionError(rules.pruner)


class Study:
    """The trials of a search, in a storage that outlives this process."""

    def __init__(self, study: optuna.Study, storage: Any, space: Space, rules: Rules, driver: str) -> None:
        self.study, self.storage, self.space, self.rules, self.driver = study, storage, space, rules, driver
        self.shared = isinstance(storage, RDBStorage)
        self.study.pruner = pruner(rules)

    def ask(self) -> Trial | None:
        """The next trial, for this driver alone; none where all that count run or have ended."""
        self._revive()
        entries = self.entries()
        held = slots(entries, self.rules.trials)
        waits = any(entry.state == "waiting" and entry.number in held for entry in entries)
        if not waits and sum(entry.replaces is None for entry in entries if entry.number in held) >= self.rules.trials:
            return None
        self.study.sampler = optuna.samplers.RandomSampler()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self.study.ask()
        self._beat(trial)
        if trial.number not in slots(self.entries(), self.rules.trials):
            self.failed(trial, SURPLUS)
            return None
        trial.set_user_attr("driver", self.driver)
        return self._drawing(trial)

    def of_this_driver(self) -> list[Trial]:
        """The trials that run for this driver; at its start, those of an earlier start."""
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        mine = [t for t in running if not self.shared or t.user_attrs.get("driver") == self.driver]
        return [self._drawing(t) for t in mine]

    def draw(self, trial: Trial) -> dict[str, float | int | str]:
        """The values of the trial by key; values that it has already stay."""
        return self.space.draw(trial)

    def report(self, trial: Trial, values: Sequence[float]) -> bool:
        """Report the values of all validations so far; whether the pruner would end the trial."""
        for step in range(len(self._frozen(trial).intermediate_values) + 1, len(values) + 1):
            trial.report(values[step - 1], step)
            if trial.should_prune():
                return True
        return False

    def running(self, trial: Trial) -> bool:
        """Whether the trial still belongs to this driver: no other has taken it for lost. Also a sign of life."""
        self._beat(trial)
        return self._frozen(trial).state is TrialState.RUNNING

    def complete(self, trial: Trial, values: Sequence[float]) -> bool:
        """Complete the trial with these values; false where it no longer belongs to this driver."""
        if not all(math.isfinite(value) for value in values):
            return self.failed(trial, f"its metric is {values[0] if len(values) == 1 else list(values)}")
        return self._finish(trial, values=list(values))

    def pruned(self, trial: Trial) -> bool:
        """Record that the pruner has ended the trial."""
        return self._finish(trial, state=TrialState.PRUNED)

    def failed(self, trial: Trial, error: str) -> bool:
        """Record that the trial has failed."""
        if self._frozen(trial).state is TrialState.RUNNING:
            trial.set_user_attr("error", error)
        return self._finish(trial, state=TrialState.FAIL)

    @property
    def over(self) -> bool:
        """Whether every trial that counts has ended, on this machine or another."""
        return ended(self.entries(), self.rules.trials, self.rules.retries)

    def entries(self) -> list[Entry]:
        """All trials that have or had a slot, or replace one that had."""
        every = self.study.get_trials(deepcopy=False)
        return [
            Entry(t.number, STATES.get(t.state) or _failed_or_lost(t), t.user_attrs.get("replaces"))
            for t in every
            if t.user_attrs.get("error") != SURPLUS
        ]

    def counted(self) -> list[FrozenTrial]:
        """The trial of each slot that counts, in the order of the slots."""
        every = {t.number: t for t in self.study.get_trials(deepcopy=False)}
        return [every[entry.number] for _, entry in sorted(newest(self.entries(), self.rules.trials).items())]

    def best(self) -> list[FrozenTrial]:
        """The best trial; with several metrics, those that no other beats in all of them."""
        if not any(t.state is TrialState.COMPLETE for t in self.study.get_trials(deepcopy=False)):
            return []
        return [self.study.best_trial] if len(self.study.directions) == 1 else self.study.best_trials

    def _drawing(self, trial: Any) -> Trial:
        """The trial with a sampler of its own."""
        rules, slot = self.rules, slots(self.entries(), self.rules.trials).get(trial.number, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = sampler(rules.sampler, self.space, rules.seed, trial.number, slot, rules.startup)
            return Trial(self.study, getattr(trial, "_trial_id"))  # noqa: B009

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self.storage.get_trial(trial._trial_id)

    def _beat(self, trial: Trial) -> None:
        if self.shared:
            self.storage.record_heartbeat(trial._trial_id)

    def _finish(self, trial: Trial, **what: Any) -> bool:
        if self._frozen(trial).state is not TrialState.RUNNING:
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.study.tell(trial.number, **what)
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError):
            if self._frozen(trial).state is TrialState.RUNNING:
                raise
            return False
        return True

    def _revive(self) -> None:
        """Give up the running trials of drivers that show no sign of life, and queue their values again."""
        if not self.shared:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fail_stale_trials(self.study)
        for t in self.study.get_trials(deepcopy=False):
            age = (datetime.now() - t.datetime_start).total_seconds() if t.datetime_start else 0.0
            if t.state is TrialState.RUNNING and "driver" not in t.user_attrs and age > self.storage.grace_period:
                self._finish(Trial(self.study, t._trial_id), state=TrialState.FAIL)
        for number in to_replace(self.entries(), self.rules.trials, self.rules.retries):
            lost = self.study.get_trials(deepcopy=False)[number]
            self.study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING,
                    params=lost.params,
                    distributions=lost.distributions,
                    user_attrs={"replaces": number},
                )
            )


def _failed_or_lost(trial: FrozenTrial) -> str:
    return "failed" if "error" in trial.user_attrs else "lost"
