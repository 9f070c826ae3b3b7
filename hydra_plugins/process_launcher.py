"""Hydra launcher `process`: every sweep job is a fresh process, a plain run with a folder of its own.

Hydra's own launcher runs all jobs in one process, where Lightning's children re-run the whole sweep and one
death ends them all. Here `python train.py -m lr=1,2` starts `python train.py lr=1 hydra.run.dir=<sweep>/0`
and so on, and reads each `result.json`.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from trainer.cli.command import check_launcher, program
from trainer.cli.hydra_internals import given_flags, store_option
from trainer.lr import ConfigError
from trainer.sweep import shared_prefix as trunks
from trainer.sweep import summary as sweep
from trainer.sweep.device_pool import named, need, threads
from trainer.sweep.job import Job
from trainer.sweep.scheduler import Scheduler, TrialSource
from trainer.sweep.spawn import Nursery, Spawn, fresh, modules
from trainer.sweep.sweep_resume import PreviousJobs, owned, owned_first

PROJECT = Path(__file__).parents[1]
OF_THE_SWEEP = ("hydra.mode", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra.run", "hydra/sweeper")
WHOLE = ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "hydra_plugins.grid_sweeper.GridSweeper")
Make = Callable[[int, list[str]], tuple[Job, bool]]
"""What makes a job of its number and its overrides, and says whether it may go on where it stopped."""


@dataclass
class ProcessLauncherConf:
    """The settings of `hydra.launcher`.

    `jobs`: how many run at once, as far as there are devices. `devices`: the GPUs that they share, as [0,1,3]; each
    belongs to one job at a time, which has as many as its trainer.devices. `timeout`: seconds after which a job is
    ended, null for never. `fail_fast`: the first failure ends all. `fork`: fork each job from a process that has
    imported what it needs, which saves most of the seconds before the first update. `shared_prefix`: of jobs that
    differ in trainer.duration only the longest is trained whole, and the others branch off it where their curves part.
    """

    _target_: str = "hydra_plugins.process_launcher.ProcessLauncher"
    jobs: int = 1
    devices: Any = "auto"
    timeout: float | None = None
    fail_fast: bool = False
    fork: bool = False
    shared_prefix: bool = False


store_option("hydra/launcher", "process", ProcessLauncherConf)


class ProcessLauncher(Launcher):
    """Runs the jobs of a sweep, tells each failure as it happens, and sums up in a table and `sweep.json`."""

    def __init__(
        self,
        jobs: int,
        devices: Any,
        timeout: float | None,
        fail_fast: bool,
        fork: bool = False,
        shared_prefix: bool = False,
    ) -> None:
        if jobs < 1:
            raise ConfigError(f"hydra.launcher.jobs={jobs} must be at least 1: it is how many jobs run at once")
        if timeout is not None and not 0 < timeout < float("inf"):
            raise ConfigError(f"hydra.launcher.timeout={timeout} must be above zero seconds, or null for no limit")
        self.jobs, self.timeout, self.fail_fast = jobs, timeout, fail_fast
        self.devices = named(OmegaConf.to_container(devices) if OmegaConf.is_config(devices) else devices)
        self.crew: Scheduler | None = None
        self.fork, self.shared_prefix = fork, shared_prefix
        self.root: Path | None = None
        self.configs: list[DictConfig] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives; the task itself runs in the jobs only."""
        check_launcher(config.hydra.launcher)
        self.loader, self.config = hydra_context.config_loader, config
        self.spawn: Spawn = Nursery(modules(OmegaConf.to_container(config))) if self.fork else fresh

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run all jobs to their end; a failed one raises `SweepFailed` when its return value is asked for."""
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        root = Path(str(self.config.hydra.sweep.dir)).resolve()
        batch, again = zip(*(self._job(initial_job_idx + i, list(given)) for i, given in enumerate(job_overrides)))
        _refuse_shared_folders(batch)
        if self.shared_prefix:
            self._share(batch)
        with owned(root) as held:
            self.crew = crew = self.crew or self._crew(root)
            crew.past.take_up(batch, again, last=self._has_all)
            crew.run(batch, held)
        sweep.show(crew.done, root)
        if self.shared_prefix:
            print(trunks.saved(crew.done), flush=True)
        failure = sweep.failure(crew.done, root)
        crew.leave_if_stopped()
        if crew.broken:
            raise failure
        return [_returned(job, failure) for job in batch]

    def pursue(self, roots: Iterable[Path], feed: Callable[[Scheduler, Make], TrialSource]) -> Scheduler:
        """Run the jobs that a feed gives until it is over, in the first of the folders that no other sweep holds."""
        if self.shared_prefix:
            raise ConfigError(
                "hydra.launcher.shared_prefix=true shares what a grid trains, and a search draws its jobs: leave it out"
            )
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        with owned_first(roots) as (root, held):
            self.root = root
            crew = self._crew(root)
            crew.run([], held, feed(crew, self._job))
        return crew

    def _crew(self, root: Path) -> Scheduler:
        return Scheduler(
            root, PreviousJobs(root), self.jobs, self.devices, self.timeout, self.fail_fast, spawn=self.spawn
        )

    @property
    def _has_all(self) -> bool:
        """Whether the first batch holds all jobs, as those of a plain grid do."""
        sweeper = self.config.hydra.sweeper
        return bool(sweeper._target_ in WHOLE and sweeper.max_batch_size is None)

    def _share(self, batch: Sequence[Job]) -> None:
        if not self._has_all:
            raise ConfigError(
                "hydra.launcher.shared_prefix=true takes all jobs of a grid at once: leave out "
                "hydra.sweeper.max_batch_size "
                "and other sweepers"
            )
        trunks.share(batch, self.configs)

    def _job(self, number: int, overrides: list[str]) -> tuple[Job, bool]:
        """The job with its folder by Hydra's naming and the command that starts it, and whether it may go on."""
        config = self.loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
            if self.root is not None:
                config.hydra.sweep.dir = str(self.root)
        if self.shared_prefix:
            self.configs.append(config)
        outer = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)).resolve()
        HydraConfig.instance().cfg = outer
        kept = [o for o in self.config.hydra.overrides.hydra if not o.lstrip("+~").startswith(OF_THE_SWEEP)]
        place = QuotedString(text=str(folder), quote=Quote.single).with_quotes()
        plain = [*kept, "hydra.mode=RUN", f"hydra.run.dir={place}"]
        job = Job(number, list(filter_overrides(overrides)), folder, [*program(given_flags()), *overrides, *plain])
        settings = config.get("trainer") or {}
        job.need = need(settings, self.devices)
        job.threads = threads(settings, self.jobs) if self.jobs > 1 else None
        return job, (config.get("resume") or {}).get("path") == "auto"


def python_path(inherited: str | None) -> str:
    """PYTHONPATH for a job that may start on another machine: this project, before what was there."""
    return os.pathsep.join([str(PROJECT), *filter(None, [inherited])])


def _refuse_shared_folders(batch: Sequence[Job]) -> None:
    seen: dict[Path, int] = {}
    for job in batch:
        if (other := seen.setdefault(job.folder, job.number)) != job.number:
            raise ConfigError(
                f"jobs {other} and {job.number} share the folder {job.folder}: "
                "hydra.sweep.subdir must differ from job to job, as ${hydra.job.num} does"
            )


def _returned(job: Job, failure: sweep.SweepFailed) -> JobReturn:
    completed = job.status == "completed"
    status = JobStatus.COMPLETED if completed else JobStatus.FAILED
    return JobReturn(job.overrides, status=status, _return_value=job.result if completed else failure)
