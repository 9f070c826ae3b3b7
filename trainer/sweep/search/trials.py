"""The trials of a search as jobs: each trial of a study is a job, and its outcome goes to the study."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import Trial

from trainer.cli.streams import short_numbers
from trainer.log.validations import read_validations
from trainer.sweep.job import Job
from trainer.sweep.launcher import MakeJob
from trainer.sweep.scheduler import Scheduler
from trainer.sweep.search.study import Study

LOOK = 0.5
"""Seconds between two checks of the running jobs, and between two requests for a trial after one without."""
PRUNED, LOST = "pruned", "interrupted, because another driver has given up its trial as lost"


def overrides_of(drawn: Mapping[str, float | int | str]) -> list[str]:
    """The overrides that give a job the values of a trial."""
    return [f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in drawn.items()]


@dataclass
class Trials:
    """A source of jobs for a scheduler: the trials of a study.

    `make_job` makes the job of a trial from its number and overrides. `fixed` are the overrides that all trials share.
    `metrics` are the names of the values in `result.json` that judge a job.
    """

    study: Study
    scheduler: Scheduler
    make_job: MakeJob
    fixed: Sequence[str]
    metrics: Sequence[str]
    over: bool = False
    _trials: dict[int, Trial] = field(default_factory=dict)
    _unfinished: list[Trial] = field(default_factory=list)
    _next: float = 0.0
    _judged: float = 0.0

    def __post_init__(self) -> None:
        self._unfinished = self.study.of_this_driver()
        self._finish_recorded()

    def next_job(self) -> Job | None:
        """The job of the next trial: first those that an earlier start has left, then new ones of the study."""
        if self._unfinished:
            return self._job(self._unfinished.pop(0))
        if time.monotonic() < self._next:
            return None
        if (trial := self.study.ask()) is not None:
            return self._job(trial)
        self._next = time.monotonic() + LOOK
        self.over = not self._trials and self.study.over
        return None

    def to_stop(self, running: Sequence[Job]) -> list[tuple[Job, str]]:
        """The running jobs that the pruner gives up, or whose trial another driver has taken over."""
        if time.monotonic() < self._judged + LOOK:
            return []
        self._judged = time.monotonic()
        return [(job, cause) for job in running if not job.ending and (cause := self._cause_to_stop(job))]

    def ended(self, job: Job) -> None:
        """Give the outcome to the study; the trial of a job that was interrupted with the sweep goes on later."""
        trial = self._trials.pop(job.number)
        if job.status == "interrupted":
            return
        if job.status == "completed":
            self._report(trial, job)
            counted = self.study.complete(trial, [self._value(job, metric) for metric in self.metrics])
        elif job.status == "pruned":
            counted = self.study.pruned(trial)
        else:
            counted = self.study.failed(trial, job.error)
        if not counted:
            print(f"job {job.number} does not count: {LOST.partition(' ')[2]}", flush=True)

    def _job(self, trial: Trial) -> Job | None:
        drawn = self.study.draw(trial)
        overrides = overrides_of(drawn)
        job, resumes = self.make_job(trial.number, [*self.fixed, *overrides])
        (job.label,) = short_numbers([" ".join(overrides)])
        job.parameters = {key.lstrip("+"): value for key, value in drawn.items()}
        trial.set_user_attr("overrides", overrides)
        self.scheduler.previous.take_up([job], [resumes], last=False)
        self._trials[trial.number] = trial
        return job

    def _finish_recorded(self) -> None:
        """Give the study the outcomes that an earlier start wrote to `sweep.json`, but not to the study."""
        for trial in list(self._unfinished):
            record = self.scheduler.previous.records.get(trial.number, {})
            if record.get("status") == "failed":
                self.study.failed(trial, record.get("error", ""))
            elif record.get("status") == "pruned":
                self.study.pruned(trial)
            else:
                continue
            self._unfinished.remove(trial)

    def _cause_to_stop(self, job: Job) -> str:
        trial = self._trials[job.number]
        if not self.study.running(trial):
            return LOST
        if not self._report(trial, job):
            return ""
        return f"{PRUNED} by {self.study.rules.pruner} after {len(read_validations(job.folder))} validations"

    def _report(self, trial: Trial, job: Job) -> bool:
        """Report the validations so far; with several metrics no pruner can judge a trial early."""
        if len(self.metrics) > 1:
            return False
        values = [line.get(self.metrics[0]) for line in read_validations(job.folder)]
        return self.study.report(trial, [float(value) for value in values if value is not None])

    def _value(self, job: Job, metric: str) -> float:
        value: Any = job.result.get("metrics", {}).get(metric)
        return float("nan") if value is None else float(value)


def search_summary(
    study: Study, metrics: Sequence[str], program: Sequence[str], fixed: Sequence[str]
) -> dict[str, Any]:
    """What `sweep.json` holds of a search: its study, how its trials ended, and the best one with its command."""
    states: dict[str, int] = {}
    failed = []
    for trial in study.counted():
        state = trial.state.name.lower().replace("fail", "failed")
        states[state] = states.get(state, 0) + 1
        failed += [trial.number] if state == "failed" else []
    best = []
    for trial in study.best():
        drawn = trial.user_attrs.get("overrides", [])
        best.append(
            {
                "number": trial.number,
                "values": dict(zip(metrics, trial.values)),
                "parameters": {name.partition(" if ")[0]: value for name, value in trial.params.items()},
                "command": shlex.join([*program, *fixed, *drawn]),
            }
        )
    return {"search": {"study": study.study.study_name, "trials": states, "failed": failed, "best": best}}
