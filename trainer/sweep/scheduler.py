"""The jobs of a sweep at work: each starts when the pool has room for it, and is watched to its end."""

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
from trainer.sweep import summary as sweep
from trainer.sweep.device_pool import SHOWN, DevicePool
from trainer.sweep.job import Job
from trainer.sweep.shared_prefix import Branches
from trainer.sweep.spawn import Spawn, fresh
from trainer.sweep.status_table import Board, count
from trainer.sweep.sweep_resume import PreviousJobs
from trainer.sweep.watchdog import TICK, Watchdog

THREADS = "OMP_NUM_THREADS"


class TrialSource(Protocol):
    """What gives a crew one job after the other, and judges them while they run, as a search does."""

    over: bool

    def fresh(self) -> Job | None:
        """The next job, if there is one now."""

    def doomed(self, running: Sequence[Job]) -> list[tuple[Job, str]]:
        """The running jobs that should end, each with the cause."""

    def ended(self, job: Job) -> None:
        """A job has ended, and `sweep.json` says so."""


@dataclass
class Scheduler:
    """Runs batches of jobs in the folder `root` of a sweep; `done` are all jobs that it was ever given.

    `timeout`: seconds after which a job is ended. `fail_fast`: the first failure ends the others.
    """

    root: Path
    past: PreviousJobs
    slots: int
    devices: Sequence[str]
    timeout: float | None
    fail_fast: bool
    done: list[Job] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    spawn: Spawn = fresh
    branches: Branches = field(default_factory=lambda: Branches([]))

    @property
    def broken(self) -> bool:
        """Whether a failure has ended the sweep."""
        return self.fail_fast and any(job.status == "failed" for job in self.done)

    def leave_if_stopped(self) -> None:
        """Exit with the signal that stopped the sweep, if one did."""
        if self.received:
            print(f"{signal.Signals(self.received[0]).name} stopped the sweep: {count(self.done)}", file=sys.stderr)
            raise SystemExit(128 + self.received[0])

    def pool(self, batch: Sequence[Job]) -> DevicePool:
        """The queue of the jobs that are not completed yet; refused where one could never start."""
        pool = DevicePool(self.slots, self.devices)
        for job in sorted(batch, key=lambda job: not any(other.trunk is job for other in batch)):
            if job.status != "completed" and job.trunk is None:
                pool.wait(job.number, job.need)
        return pool

    def run(self, batch: Sequence[Job], keep: Sequence[int], feed: TrialSource | None = None) -> None:
        """Run all jobs of a batch to their end, or to the signal that stops the sweep; then none of them is left.

        The files `keep` stay open until then, even where this process is killed. `feed` gives more jobs, until it is
        over.
        """
        pool, jobs = self.pool(batch), {job.number: job for job in batch}
        self.branches = Branches(batch)
        self.done += batch
        if batch:
            sweep.label(self.done)
        self.write()
        forwarded = 0
        with _signals(self.received), _guarded(keep) as guardian, Board(self.done, live=self.slots > 1) as board:
            try:
                while not pool.idle or self.branches.held or self._fed(feed):
                    for job in self.branches.settled():
                        if job.status == "waiting":
                            pool.wait(job.number, job.need)
                        else:
                            self._tell(job, pool, jobs)
                    if feed and self._fed(feed):
                        self._take(feed, pool, jobs)
                    for number, devices in pool.admit().items():
                        self._start(jobs[number], devices, guardian)
                        self.write()
                    time.sleep(TICK)
                    for signum in self.received[forwarded:]:
                        forwarded += 1
                        self._stop(pool, jobs, signum, f"stopped by {signal.Signals(signum).name}")
                    for number in [number for number in pool.held if self._ended(jobs[number])]:
                        pool.release(number)
                        guardian.forget(jobs[number].group)
                        self._tell(jobs[number], pool, jobs)
                        if feed:
                            feed.ended(jobs[number])
                    board.refresh()
            finally:
                for number in pool.held:
                    jobs[number].end(signal.SIGKILL, "stopped with the sweep")

    def _fed(self, feed: TrialSource | None) -> bool:
        """Whether more jobs may come."""
        return feed is not None and not feed.over and not self.received and not self.broken

    def _take(self, feed: TrialSource, pool: DevicePool, jobs: dict[int, Job]) -> None:
        """End the jobs that the feed has given up, and take the next one where there is room."""
        for job, cause in feed.doomed([jobs[number] for number in pool.held]):
            job.end(signal.SIGTERM, cause)
        if pool.hungry and (fresh := feed.fresh()):
            jobs[fresh.number] = fresh
            self.done.append(fresh)
            if fresh.status == "waiting":
                pool.wait(fresh.number, fresh.need)
            self.write()
            if fresh.status != "waiting":
                feed.ended(fresh)

    def _tell(self, job: Job, pool: DevicePool, jobs: dict[int, Job]) -> None:
        sweep.tell(job)
        self.write()
        if self.fail_fast and job.status == "failed":
            self._stop(pool, jobs, signal.SIGTERM, f"stopped by the failure of job {job.number}")

    def write(self) -> None:
        """Write `sweep.json` as things are."""
        sweep.write(self.done, self.root, self.past.rest.values(), self.about)

    def _stop(self, pool: DevicePool, jobs: dict[int, Job], signum: int, cause: str) -> None:
        pool.close()
        self.branches.held.clear()
        for number in pool.held:
            jobs[number].end(signum, cause)

    def _ended(self, job: Job) -> bool:
        over = job.ended(self.timeout)
        if self.slots == 1:
            job.show()
        return over

    def _start(self, job: Job, devices: tuple[str, ...], guardian: Watchdog) -> None:
        job.devices = devices
        where = f" on {', '.join(devices)}" if devices else ""
        print(f"job {job.number}: {job.label} -> {job.folder}{where}", flush=True)
        inherited = {k: v for k, v in os.environ.items() if k != OF_RANK_ZERO}
        own = {VARIABLE: f"{self.root.name}-{job.number}", "PYTHONUNBUFFERED": "1", NO_REQUEUE: "1"}
        if self.devices:
            own[SHOWN] = ",".join(devices)
        if job.threads is not None:
            own[THREADS] = inherited.get(THREADS) or str(job.threads)
        if group := job.start(inherited | own, self.spawn):
            guardian.watch(group)


@contextmanager
def _guarded(keep: Sequence[int]) -> Iterator[Watchdog]:
    guardian = Watchdog(keep)
    try:
        yield guardian
    finally:
        guardian.close()


@contextmanager
def _signals(received: list[int]) -> Iterator[None]:
    """Note the signals that ask the sweep to stop, in the order they arrive; what was ignored stays ignored."""
    asked = (signal.SIGINT, signal.SIGHUP, *SIGNALS)
    stops = [s for s in asked if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, lambda signum, _: received.append(signum)) for s in stops}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
