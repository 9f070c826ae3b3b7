"""Jobs through Slurm: the driver submits each by submitit, asks squeue about it, and sends signals by scancel.

A job of Slurm runs `run_task` in each of its tasks: a plain run as a child process. Jobs outlive a driver that was
killed. The next driver with `resume=auto` finds their number in the folder of the job and goes on waiting for them.
"""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from trainer.cli.extras import needed
from trainer.distributed.launch.requeue import NO_REQUEUE, PARENT, requeue
from trainer.distributed.launch.signals import SIGNALS, signal_of
from trainer.files.atomic import write_text
from trainer.lr import ConfigError
from trainer.sweep.job import LEFTOVER
from trainer.sweep.spawn import python_path

POLL = 2.0
"""Seconds between two questions to squeue."""
LOOKS = 8
"""How often in a row a job must be missing, or squeue fail, before the driver believes it."""
JOB_ID = ".slurm-job"
"""The file in the folder of a job that names its Slurm job."""
RUNNING = ("RUNNING", "COMPLETING", "STOPPED")


class Slurm:
    """Submits jobs to Slurm and knows which of them wait, run and have ended.

    Args:
        root: the folder of the sweep.
        name: the name of the jobs in Slurm.
        settings: those of submitit's executor.
    """

    def __init__(self, root: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.folder, self.name, self.settings = root / ".submitit" / "%j", name, dict(settings)
        os.environ["PYTHONPATH"] = python_path(os.environ.get("PYTHONPATH"))  # sbatch passes it on
        self.processes: dict[str, SlurmProcess] = {}
        self.silent = False
        """Whether this driver has given up because squeue does not answer; the jobs go on."""
        self._executor: Any = None
        self._asked, self._failures = 0.0, 0

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> "SlurmProcess":
        """Submit a job, or go on with the Slurm job that an earlier driver has submitted for its folder.

        Raises:
            ConfigError: Slurm refuses the first job.
        """
        own = {name: value for name, value in environment.items() if os.environ.get(name) != value}
        handle = self._earlier(log.parent) or self._submit(list(command), own | {NO_REQUEUE: PARENT}, log)
        process = SlurmProcess(self, handle, log)
        if handle is not None:
            self.processes[str(handle.job_id)] = process
            write_text(log.parent / JOB_ID, str(handle.job_id))
            print(f"{log.parent}: Slurm job {handle.job_id}", flush=True)
        return process

    def update(self) -> None:
        """Ask squeue which jobs wait and run, every `POLL` seconds.

        Raises:
            RuntimeError: it has failed `LOOKS` times in a row.
        """
        if time.monotonic() < self._asked + POLL:
            return
        since, self._asked = self._asked, time.monotonic()
        states = self._states()
        if states is not None:
            for job_id, process in self.processes.items():
                process.observe(states.get(job_id), self._asked - since if since else 0.0)

    def _states(self) -> dict[str, str] | None:
        """The state of each job that Slurm knows, by its number; None where squeue does not answer now."""
        listing = subprocess.run(["squeue", "--noheader", "--format=%i %T"], capture_output=True, text=True)
        self._failures = self._failures + 1 if listing.returncode else 0
        if self._failures >= LOOKS:
            self.silent = True
            raise RuntimeError(f"squeue: {listing.stderr.strip()}: the jobs go on, and each leaves its result.json")
        if self._failures:
            return None
        pairs = (line.split(maxsplit=1) for line in listing.stdout.splitlines() if " " in line.strip())
        return {job_id: state.strip() for job_id, state in pairs}

    def connect(self) -> None:
        """Find Slurm; nothing is written. Raises ConfigError where there is no submitit or no Slurm."""
        if self._executor is not None:
            return
        self._submitit = needed("submitit", "hydra/launcher=submitit_slurm")
        try:
            executor = self._submitit.AutoExecutor(folder=self.folder, cluster="slurm")
        except RuntimeError as error:
            raise ConfigError(
                f"hydra/launcher=submitit_slurm: {error}: submit from a machine that has srun."
            ) from error
        executor.update_parameters(name=self.name, **self.settings)
        self._executor = executor

    def _earlier(self, folder: Path) -> Any:
        """The Slurm job that an earlier driver has submitted for this folder and that has not ended, if any."""
        if not (folder / JOB_ID).exists():
            return None
        while (states := self._states()) is None:
            time.sleep(POLL)
        if (job_id := (folder / JOB_ID).read_text()) not in states:
            return None
        tasks = range(self.settings["nodes"] * self.settings["tasks_per_node"])
        return self._submitit.SlurmJob(self.folder, job_id, tuple(tasks))

    def _submit(self, command: list[str], environment: dict[str, str], log: Path) -> Any:
        """Submit a job. None where Slurm refuses it: the reason is then in its log."""
        printed = io.StringIO()
        try:
            with redirect_stderr(printed):
                handle = self._executor.submit(run_task, command, environment, str(log))
            sys.stderr.write(printed.getvalue())
            return handle
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            if not self.processes:
                raise ConfigError(f"hydra/launcher=submitit_slurm: Slurm refuses the first job: {reason}") from error
            with log.open("a") as file:
                file.write(f"Slurm refuses the job: {reason}\n")
            return None


class SlurmProcess:
    """A job in Slurm. It is not a process of this machine, so its id is 0."""

    pid = 0

    def __init__(self, slurm: Slurm, handle: Any, log: Path) -> None:
        self._slurm, self._handle, self._log = slurm, handle, log
        self._submitted, self._waited, self._killed = time.monotonic(), 0.0, 0.0
        self._running, self._cancelled, self._missed = False, 0, 0
        self._code: int | None = 1 if handle is None else None

    @property
    def waited(self) -> float:
        """Seconds that it has waited for a machine, also after it was requeued."""
        return min(self._waited, time.monotonic() - self._submitted)

    def observe(self, state: str | None, seconds: float) -> None:
        """Note the state that squeue shows (None: it is missing), `seconds` after it was last asked."""
        self._running = state in RUNNING
        self._missed = 0 if state else self._missed + 1
        if state and not self._running:
            self._waited += seconds

    def poll(self) -> int | None:
        """The exit code of the first task that failed, once each has left one; 1 where the job is gone without."""
        if self._code is None:
            self._slurm.update()
            tasks = [self._handle.task(number) for number in range(self._handle.num_tasks)]
            if all(task.paths.result_pickle.exists() for task in tasks):
                self._end(next(filter(None, map(_exit_code, tasks)), 0))  # that of a killed task is negative
            elif self._cancelled and self._missed:
                self._end(-self._cancelled)
            elif self._missed >= LOOKS:
                with self._log.open("a") as log:
                    log.write("gone from Slurm without a result\n")
                self._end(1)
        return self._code

    def alive(self) -> bool:
        """Whether it waits or runs."""
        return self._code is None

    def send(self, signum: int) -> None:
        """Send SIGTERM to a job that runs, and then saves itself; cancel one that waits, or for SIGKILL."""
        if self._code is not None or self._slurm.silent:
            return
        kill = signum == signal.SIGKILL
        if self._killed:
            if time.monotonic() > self._killed + LEFTOVER:  # its node does not answer
                self._end(-signum)
            return
        self._killed = time.monotonic() if kill else 0.0
        if self._running:
            self._scancel("--signal=KILL" if kill else "--signal=TERM")
        if kill or not self._running:
            self._cancelled = signum
            self._scancel()

    def _scancel(self, *options: str) -> None:
        subprocess.run(["scancel", *options, str(self._handle.job_id)], capture_output=True)

    def _end(self, code: int) -> None:
        self._code = code
        self._slurm.processes.pop(str(self._handle.job_id), None)
        (self._log.parent / JOB_ID).unlink(missing_ok=True)


def run_task(command: list[str], environment: dict[str, str], log: str) -> int:
    """Run a command in a task of a Slurm job, with its output in the log, and return its exit code.

    Signals are passed on to the run, which saves itself; submitit's own handlers are replaced. A job that Slurm will
    start again leaves no result.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with Path(log).open("ab") as file:
        run = subprocess.Popen(
            command, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    for signum in SIGNALS:
        signal.signal(signum, lambda number, _: run.send_signal(number))
    code = run.wait()
    if by := signal_of(code):
        first = os.environ.get("SLURM_PROCID", "0") == "0"
        if not first or requeue(by).endswith("is requeued"):
            sys.exit(code)
    return code


def _exit_code(task: Any) -> int:
    """The exit code of a task; 1 where submitit could not run it, as in a folder that cannot be written."""
    try:
        return int(task.result())
    except Exception:  # any kind: the log has it
        return 1
