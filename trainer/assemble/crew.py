"""The jobs of a sweep at work: each starts when the pool has room for it, and is watched to its end."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trainer.assemble import sweep
from trainer.assemble.board import Board
from trainer.assemble.continued import Past
from trainer.assemble.guardian import TICK, Guardian
from trainer.assemble.job import Job
from trainer.assemble.pool import SHOWN, Pool
from trainer.assemble.requeue import NO_REQUEUE
from trainer.assemble.stamp import OF_RANK_ZERO, VARIABLE
from trainer.signals import SIGNALS

THREADS = "OMP_NUM_THREADS"


@dataclass
class Crew:
    """Runs batches of jobs in the folder `root` of a sweep; `done` are all jobs that it was ever given.

    `timeout`: seconds after which a job is ended. `fail_fast`: the first failure ends the others.
    """

    root: Path
    past: Past
    slots: int
    devices: Sequence[str]
    timeout: float | None
    fail_fast: bool
    done: list[Job] = field(default_factory=list)
    received: list[int] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether a failure has ended the sweep."""
        return self.fail_fast and any(job.status == "failed" for job in self.done)

    def pool(self, batch: Sequence[Job]) -> Pool:
        """The queue of the jobs that are not completed yet; refused where one could never start."""
        pool = Pool(self.slots, self.devices)
        for job in batch:
            if job.status != "completed":
                pool.wait(job.number, job.need)
        return pool

    def run(self, batch: Sequence[Job], keep: Sequence[int]) -> None:
        """Run all jobs of a batch to their end, or to the signal that stops the sweep; then none of them is left.

        The files `keep` stay open until then, even where this process is killed.
        """
        pool, jobs = self.pool(batch), {job.number: job for job in batch}
        self.done += batch
        sweep.label(self.done)
        self._write()
        forwarded = 0
        with _signals(self.received), _guarded(keep) as guardian, Board(self.done, live=self.slots > 1) as board:
            try:
                while not pool.idle:
                    for number, devices in pool.admit().items():
                        guardian.watch(self._start(jobs[number], devices))
                        self._write()
                    time.sleep(TICK)
                    for signum in self.received[forwarded:]:
                        forwarded += 1
                        self._stop(pool, jobs, signum, f"stopped by {signal.Signals(signum).name}")
                    for number in [number for number in pool.held if self._ended(jobs[number])]:
                        pool.release(number)
                        guardian.forget(jobs[number].group)
                        self._tell(jobs[number], pool, jobs)
                    board.refresh()
            finally:
                for number in pool.held:
                    jobs[number].end(signal.SIGKILL, "stopped with the sweep")

    def _tell(self, job: Job, pool: Pool, jobs: dict[int, Job]) -> None:
        sweep.tell(job)
        self._write()
        if self.fail_fast and job.status == "failed":
            self._stop(pool, jobs, signal.SIGTERM, f"stopped by the failure of job {job.number}")

    def _write(self) -> None:
        sweep.write(self.done, self.root, self.past.rest.values())

    def _stop(self, pool: Pool, jobs: dict[int, Job], signum: int, cause: str) -> None:
        pool.close()
        for number in pool.held:
            jobs[number].end(signum, cause)

    def _ended(self, job: Job) -> bool:
        over = job.ended(self.timeout)
        if self.slots == 1:
            job.show()
        return over

    def _start(self, job: Job, devices: tuple[str, ...]) -> int:
        job.devices = devices
        where = f" on {', '.join(devices)}" if devices else ""
        print(f"job {job.number}: {job.label} -> {job.folder}{where}", flush=True)
        inherited = {k: v for k, v in os.environ.items() if k != OF_RANK_ZERO}
        own = {VARIABLE: f"{self.root.name}-{job.number}", "PYTHONUNBUFFERED": "1", NO_REQUEUE: "1"}
        if self.devices:
            own[SHOWN] = ",".join(devices)
        if job.threads is not None:
            own[THREADS] = inherited.get(THREADS) or str(job.threads)
        return job.start(inherited | own)


@contextmanager
def _guarded(keep: Sequence[int]) -> Iterator[Guardian]:
    guardian = Guardian(keep)
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
