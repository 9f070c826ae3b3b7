"""Runs the jobs of a sweep: each starts when a slot and its devices are free, and is observed to its end."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trainer.cli.run_id import OF_RANK_ZERO, VARIABLE
from trainer.distributed.launch.requeue import NO_REQUEUE
from trainer.distributed.launch.signals import SIGNALS
from trainer.sweep.device_pool import VISIBLE, DevicePool
from trainer.sweep.job import Job
from trainer.sweep.spawn import Spawn, fresh
from trainer.sweep.status_table import StatusTable, format_counts
from trainer.sweep.summary import SUMMARY, print_outcome, set_labels, write_summary
from trainer.sweep.sweep_resume import PreviousJobs
from trainer.sweep.waiting_for_prefix import WaitingForPrefix
from trainer.sweep.watchdog import TICK, Watchdog

THREADS = "OMP_NUM_THREADS"


class TrialSource(Protocol):
    """Gives a scheduler one job after the other and may stop them while they run, as a search does."""

    over: bool

    def next_job(self) -> Job | None:
        """The next job, if there is one now."""

    def to_stop(self, running: Sequence[Job]) -> list[tuple[Job, str]]:
        """The running jobs that should end, each with the cause."""

    def ended(self, job: Job) -> None:
        """Take note of a job that has ended and is recorded in `sweep.json`."""


@dataclass(frozen=True)
class Limits:
    """`slots`: how many jobs run at once. `devices`: the GPUs that they share.

    `timeout`: seconds after which a job is ended (None: never). `fail_fast`: the first failure ends the others.
    """

    slots: int
    devices: Sequence[str] = ()
    timeout: float | None = None
    fail_fast: bool = False


@dataclass
class Scheduler:
    """Runs batches of jobs in the folder `root` of a sweep; `jobs` are those of all batches."""

    root: Path
    limits: Limits
    spawn: Spawn = fresh
    jobs: list[Job] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    """Signals that have asked the sweep to stop, in their order."""
    search: dict[str, Any] = field(default_factory=dict)
    """What a search adds to `sweep.json`."""
    previous: PreviousJobs = field(init=False)
    _warned: bool = field(init=False, default=False)
    _alone: bool = field(init=False, default=False)
    """Whether there is one job only: what it prints is shown as it comes."""
    _warnings: set[str] = field(init=False, default_factory=set)
    _by_number: dict[int, Job] = field(init=False, default_factory=dict)
    _queue: DevicePool = field(init=False)
    _prefixes: WaitingForPrefix = field(init=False)

    def __post_init__(self) -> None:
        self.previous = PreviousJobs(self.root)

    @property
    def broken(self) -> bool:
        """Whether a failure has ended the sweep."""
        return self.limits.fail_fast and any(job.status == "failed" for job in self.jobs)

    def exit_if_stopped(self) -> None:
        """Exit with the signal that stopped the sweep, if one did."""
        if self.received:
            name = signal.Signals(self.received[0]).name
            how = f"go on with the same command, name={self.root.name} and resume=auto"
            print(f"{name} interrupted the sweep: {format_counts(self.jobs)}; {how}", file=sys.stderr)
            raise SystemExit(128 + self.received[0])

    def run(self, batch: Sequence[Job], keep: Sequence[int], source: TrialSource | None = None) -> None:
        """Run all jobs of a batch until they have ended or a signal stops the sweep; no process of them is left then.

        The files `keep` stay open until then, even where this process is killed. `source` gives more jobs until it is
        over.
        """
        self._queue = self._make_queue(batch)
        self._by_number = {job.number: job for job in batch}
        self._prefixes = WaitingForPrefix(batch)
        self.jobs += batch
        if batch:
            set_labels(self.jobs)
        self.write()
        forwarded, self._alone = 0, source is None and len(batch) == 1
        with (
            _collect_signals(self.received),
            _started_watchdog(keep) as watchdog,
            StatusTable(self.jobs, live=not self._alone) as table,
        ):
            try:
                while not self._queue.idle or self._prefixes.jobs or self._has_more(source):
                    self._admit(source, watchdog)
                    time.sleep(TICK)
                    for signum in self.received[forwarded:]:
                        forwarded += 1
                        self._stop(signum, f"interrupted by {signal.Signals(signum).name}")
                    self._collect_ended(source, watchdog)
                    table.refresh()
            finally:
                for job in self._running():
                    job.end(signal.SIGKILL, "interrupted with the sweep")

    def write(self) -> None:
        """Write the present state to `sweep.json`; where that fails, the jobs go on, and the next write may succeed."""
        try:
            write_summary(self.jobs, self.root, self.previous.records.values(), self.search)
        except OSError as error:
            if not self._warned:
                self._warned = True
                print(f"warning: {self.root / SUMMARY} is not up to date: {error.strerror}.", file=sys.stderr)

    def _make_queue(self, batch: Sequence[Job]) -> DevicePool:
        """The queue of the jobs that are not completed; the sources of shared prefixes first."""
        queue = DevicePool(self.limits.slots, self.limits.devices)
        sources = [job.prefix.source.number for job in batch if job.prefix]
        for job in sorted(batch, key=lambda job: job.number not in sources):
            if job.status != "completed" and job.prefix is None:
                queue.wait(job.number, job.need)
        return queue

    def _running(self) -> list[Job]:
        return [self._by_number[number] for number in self._queue.held]

    def _has_more(self, source: TrialSource | None) -> bool:
        """Whether more jobs may come."""
        return source is not None and not source.over and not self.received and not self.broken

    def _admit(self, source: TrialSource | None, watchdog: Watchdog) -> None:
        """Start the jobs that there is room for."""
        for job in self._prefixes.ready():
            if job.status == "waiting":
                self._queue.wait(job.number, job.need)
            else:
                self._conclude(job)
        if source and self._has_more(source):
            self._ask(source)
        for number, devices in self._queue.admit().items():
            self._start(self._by_number[number], devices, watchdog)
            self.write()

    def _ask(self, source: TrialSource) -> None:
        """End the jobs that the source has given up, and take its next one where there is room."""
        for job, cause in source.to_stop(self._running()):
            job.end(signal.SIGTERM, cause)
        if self._queue.has_room and (new := source.next_job()):
            self._by_number[new.number] = new
            self.jobs.append(new)
            if new.status == "waiting":
                self._queue.wait(new.number, new.need)
            self.write()
            if new.status != "waiting":
                source.ended(new)

    def _collect_ended(self, source: TrialSource | None, watchdog: Watchdog) -> None:
        """Release the devices of the jobs that have ended."""
        for job in [job for job in self._running() if self._has_ended(job)]:
            self._queue.release(job.number)
            watchdog.remove(job.group)
            self._conclude(job)
            if source:
                source.ended(job)

    def _conclude(self, job: Job) -> None:
        """Report how a job has ended; with `fail_fast`, stop the others after a failure."""
        for line in [] if self._alone else job.warnings():
            if line not in self._warnings:
                self._warnings.add(line)
                print(f"job {job.number} {line}", file=sys.stderr, flush=True)
        print_outcome(job)
        job.remove_refused()
        self.write()
        if self.limits.fail_fast and job.status == "failed":
            self._stop(signal.SIGTERM, f"interrupted by the failure of job {job.number}")

    def _stop(self, signum: int, cause: str) -> None:
        """Start no more jobs, and end those that run, the newest first: they may wait in Slurm for another to end."""
        self._queue.close()
        self._prefixes.jobs.clear()
        for job in reversed(self._running()):
            job.end(signum, cause)

    def _has_ended(self, job: Job) -> bool:
        ended = job.ended(self.limits.timeout)
        if self._alone:
            job.show()
        return ended

    def _start(self, job: Job, devices: tuple[str, ...], watchdog: Watchdog) -> None:
        job.devices = devices
        on = f" on {', '.join(devices)}" if devices else ""
        if self._alone or not sys.stdout.isatty():  # else it is in the table of running jobs
            print(f"job {job.number}: {job.label} -> {job.folder}{on}", flush=True)
        environment = {key: value for key, value in os.environ.items() if key != OF_RANK_ZERO}
        environment |= {VARIABLE: f"{self.root.name}-{job.number}", "PYTHONUNBUFFERED": "1", NO_REQUEUE: "1"}
        if self.limits.devices:
            environment[VISIBLE] = ",".join(devices)
        if job.threads is not None:
            environment[THREADS] = environment.get(THREADS) or str(job.threads)
        if group := job.start(environment, self.spawn):
            watchdog.add(group)


@contextmanager
def _started_watchdog(keep: Sequence[int]) -> Iterator[Watchdog]:
    watchdog = Watchdog(keep)
    try:
        yield watchdog
    finally:
        watchdog.close()


@contextmanager
def _collect_signals(received: list[int]) -> Iterator[None]:
    """Note the signals that ask the sweep to stop, in the order they arrive; ignored signals stay ignored."""
    stops = [s for s in SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, lambda signum, _: received.append(signum)) for s in stops}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
