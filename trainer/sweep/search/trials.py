"""A search at work: each trial of a study is a job of a crew, and what came of the job is told to the study."""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainer.log.validations import validations
from trainer.sweep.job import Job
from trainer.sweep.scheduler import Scheduler

if TYPE_CHECKING:
    from trainer.sweep.search.study import Study, Trial

LOOK = 0.5
"""Seconds between two looks at the running jobs, and between two questions for a trial where there is none."""
PRUNED, LOST = "pruned", "stopped, since another driver took its trial for lost"


@dataclass
class Trials:
    """Feeds a crew with the trials of a study, and tells the study how the jobs go.

    `make` makes the job of a trial from its number and overrides; `fixed` are the overrides that all trials have,
    `metrics` what is told of a job, from the `metrics` of its `result.json`.
    """

    study: "Study"
    crew: Scheduler
    make: Callable[[int, list[str]], tuple[Job, bool]]
    fixed: Sequence[str]
    metrics: Sequence[str]
    over: bool = False
    _trials: dict[int, "Trial"] = field(default_factory=dict)
    _again: list["Trial"] = field(default_factory=list)
    _next: float = 0.0
    _looked: float = 0.0

    def __post_init__(self) -> None:
        self._again = self.study.mine()
        self._settle()

    def fresh(self) -> Job | None:
        """The job of the next trial: first those that an earlier start has left, then what the study gives."""
        if self._again:
            return self._job(self._again.pop(0))
        if time.monotonic() < self._next:
            return None
        if (trial := self.study.ask()) is not None:
            return self._job(trial)
        self._next = time.monotonic() + LOOK
        self.over = not self._trials and self.study.over
        return None

    def doomed(self, running: Sequence[Job]) -> list[tuple[Job, str]]:
        """The running jobs that their validations or another driver have put an end to."""
        if time.monotonic() < self._looked + LOOK:
            return []
        self._looked = time.monotonic()
        return [(job, cause) for job in running if not job.ending and (cause := self._verdict(job))]

    def ended(self, job: Job) -> None:
        """Tell the study; a job that was stopped with the sweep stays its trial, which goes on with it."""
        trial = self._trials.pop(job.number)
        if job.status == "stopped":
            return
        if job.status == "completed":
            self._report(trial, job)
            told = self.study.complete(trial, [self._value(job, metric) for metric in self.metrics])
        elif job.status == "pruned":
            told = self.study.pruned(trial)
        else:
            told = self.study.failed(trial, job.error)
        if not told:
            print(f"job {job.number} does not count: {LOST.partition(' ')[2]}", flush=True)

    def _job(self, trial: "Trial") -> Job | None:
        drawn = self.study.draw(trial)
        words = [f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in drawn.items()]
        job, again = self.make(trial.number, [*self.fixed, *words])
        job.label, job.parameters = " ".join(words), {key.lstrip("+"): value for key, value in drawn.items()}
        trial.set_user_attr("words", words)
        self.crew.past.take_up([job], [again], last=False)
        self._trials[trial.number] = trial
        return job

    def _settle(self) -> None:
        """Tell the study what an earlier start wrote down in `sweep.json` and did not come to tell."""
        for trial in list(self._again):
            record = self.crew.past.rest.get(trial.number, {})
            if record.get("status") == "failed":
                self.study.failed(trial, record.get("error", ""))
            elif record.get("status") == "pruned":
                self.study.pruned(trial)
            else:
                continue
            self._again.remove(trial)

    def _verdict(self, job: Job) -> str:
        trial = self._trials[job.number]
        if not self.study.running(trial):
            return LOST
        if not self._report(trial, job):
            return ""
        return f"{PRUNED} by {self.study.rules.pruner} after {len(validations(job.folder))} validations"

    def _report(self, trial: "Trial", job: Job) -> bool:
        """Tell the validations so far; with several metrics there is none that could judge a trial early."""
        if len(self.metrics) > 1:
            return False
        told = [line.get(self.metrics[0]) for line in validations(job.folder)]
        return self.study.report(trial, [float(value) for value in told if value is not None])

    def _value(self, job: Job, metric: str) -> float:
        value: Any = job.result.get("metrics", {}).get(metric)
        return float("nan") if value is None else float(value)


def summary(study: "Study", metrics: Sequence[str], program: Sequence[str], fixed: Sequence[str]) -> dict[str, Any]:
    """What `sweep.json` holds of a search: its study, how many trials ended how, and the best with its command."""
    states: dict[str, int] = {}
    failed = []
    for trial in study.counted():
        state = trial.state.name.lower().replace("fail", "failed")
        states[state] = states.get(state, 0) + 1
        failed += [trial.number] if state == "failed" else []
    best = []
    for trial in study.best():
        drawn = trial.user_attrs.get("words", [])
        best.append(
            {
                "number": trial.number,
                "values": dict(zip(metrics, trial.values)),
                "parameters": {name.partition(" if ")[0]: value for name, value in trial.params.items()},
                "command": shlex.join([*program, *fixed, *drawn]),
            }
        )
    return {"search": {"study": study.study.study_name, "trials": states, "failed": failed, "best": best}}
