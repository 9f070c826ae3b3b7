"""Hydra launcher `process`: every sweep job is a fresh process, a plain run with a folder of its own.

Hydra's own launcher runs all jobs in one process, where Lightning's children re-run the whole sweep and one
death ends them all. Here `python train.py -m lr=1,2` starts `python train.py lr=1 hydra.run.dir=<sweep>/0`
and so on, and reads each `result.json`.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

import __main__
from trainer.assemble import sweep
from trainer.assemble.job import RESULT, TICK, Job
from trainer.assemble.stamp import OF_RANK_ZERO, VARIABLE
from trainer.lr import Refusal

OF_THE_SWEEP = ("hydra.mode", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra.run", "hydra/sweeper")


@dataclass
class ProcessLauncherConf:
    """`jobs`: how many run at once. `timeout`: seconds after which a job is ended, null for never."""

    _target_: str = "hydra_plugins.process_launcher.ProcessLauncher"
    jobs: int = 1
    timeout: float | None = None


ConfigStore.instance().store("process", ProcessLauncherConf, group="hydra/launcher", provider="cadence")


class ProcessLauncher(Launcher):
    """Runs the jobs of a sweep, tells each failure as it happens, and sums up in a table and `sweep.json`."""

    def __init__(self, jobs: int, timeout: float | None) -> None:
        if jobs < 1:
            raise Refusal(f"hydra.launcher.jobs={jobs} must be at least 1: it is how many jobs run at once")
        if timeout is not None and timeout <= 0:
            raise Refusal(f"hydra.launcher.timeout={timeout} must be above zero seconds, or null for no limit")
        self.jobs, self.timeout = jobs, timeout
        self.done: list[Job] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives; the task itself runs in the jobs only."""
        ranks = max(int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
        if ranks > 1:
            raise Refusal(
                f"this is one of {ranks} ranks, and each would run the whole sweep: start it with plain python "
                "and let each job be distributed, as in trainer=ddp trainer.devices=2"
            )
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run all jobs to their end; a failed one raises `SweepFailed` when its return value is asked for."""
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        folder = Path(str(self.config.hydra.sweep.dir)).resolve()
        batch = [self._job(initial_job_idx + i, list(given)) for i, given in enumerate(job_overrides)]
        _refuse_used_folders(batch)
        self.done += batch
        sweep.label(self.done)
        with _signals() as received:
            self._run(batch, folder, received)
        sweep.write(self.done, folder)
        sweep.show(self.done, folder)
        if received:
            done = sum(job.status == "completed" for job in self.done)
            name = signal.Signals(received[0]).name
            print(f"{name} stopped the sweep: {done} of {len(self.done)} jobs completed", file=sys.stderr)
            raise SystemExit(128 + received[0])
        return [_returned(job, sweep.failure(self.done, folder)) for job in batch]

    def _job(self, number: int, overrides: list[str]) -> Job:
        """The job with the folder that Hydra's own naming gives it, and the command that starts it."""
        config = self.loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        outer = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)).resolve()
        HydraConfig.instance().cfg = outer
        kept = [o for o in self.config.hydra.overrides.hydra if not o.lstrip("+~").startswith(OF_THE_SWEEP)]
        place = QuotedString(text=str(folder), quote=Quote.single).with_quotes()
        plain = [*kept, "hydra.mode=RUN", f"hydra.run.dir={place}"]
        return Job(number, list(filter_overrides(overrides)), folder, [*_program(), *overrides, *plain])

    def _run(self, batch: list[Job], root: Path, received: list[int]) -> None:
        waiting, running, forwarded = list(batch), list[Job](), 0
        try:
            while running or (waiting and not received):
                while waiting and len(running) < self.jobs and not received:
                    running.append(waiting.pop(0))
                    self._start(running[-1], root)
                time.sleep(TICK)
                for signum in received[forwarded:]:
                    forwarded += 1
                    for job in running:
                        job.end(signum, f"stopped by {signal.Signals(signum).name}")
                for job in [job for job in running if self._ended(job)]:
                    running.remove(job)
                    sweep.tell(job)
                    sweep.write(self.done, root)
        finally:
            for job in running:
                job.end(signal.SIGKILL, "stopped with the sweep")

    def _ended(self, job: Job) -> bool:
        over = job.ended(self.timeout)
        if self.jobs == 1:
            job.show()
        return over

    def _start(self, job: Job, root: Path) -> None:
        print(f"job {job.number}: {job.label} -> {job.folder}", flush=True)
        inherited = {k: v for k, v in os.environ.items() if k != OF_RANK_ZERO}
        own = {VARIABLE: f"{root.name}-{job.number}", "PYTHONUNBUFFERED": "1"}
        job.start(inherited | own)


def _program() -> list[str]:
    """How this program was started, up to its overrides."""
    given = get_args_parser().parse_args()
    spec = __main__.__spec__
    script = [sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]
    flags = {
        "--config-path": given.config_path,
        "--config-name": given.config_name,
        "--config-dir": given.config_dir,
    }
    chosen = [word for flag, value in flags.items() if value is not None for word in (flag, value)]
    return [sys.executable, *script, *chosen]


def _refuse_used_folders(batch: list[Job]) -> None:
    seen: dict[Path, int] = {}
    for job in batch:
        if (job.folder / RESULT).exists():
            raise Refusal(f"{job.folder} holds the {RESULT} of an earlier job: choose another name for this sweep")
        if (other := seen.setdefault(job.folder, job.number)) != job.number:
            raise Refusal(
                f"jobs {other} and {job.number} share the folder {job.folder}: "
                "hydra.sweep.subdir must differ from job to job, as ${hydra.job.num} does"
            )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that ask the sweep to stop, in the order they arrive; what was ignored stays ignored."""
    received: list[int] = []
    stops = [s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, lambda signum, _: received.append(signum)) for s in stops}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _returned(job: Job, failure: sweep.SweepFailed) -> JobReturn:
    completed = job.status == "completed"
    status = JobStatus.COMPLETED if completed else JobStatus.FAILED
    return JobReturn(job.overrides, status=status, _return_value=job.result if completed else failure)
