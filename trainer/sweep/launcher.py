"""What all launchers of sweeps share: they make jobs from overrides and give them to a scheduler.

`python train.py -m lr=1,2` starts `python train.py lr=1 hydra.run.dir=<sweep>/0` and so on, and reads each
`result.json`. Hydra's own launcher runs all jobs in one process, where Lightning's ranks would run the whole sweep
again and one crash would end all jobs. Each launcher decides how a job is started (`Spawn`).
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from trainer.cli.command import check_launcher, program
from trainer.cli.compose import keep_search_path
from trainer.cli.dry_run import is_dry_run
from trainer.cli.hydra_internals import composed_once, given_flags
from trainer.cli.streams import shown
from trainer.lr import ConfigError
from trainer.sweep.alike_jobs import AlikeJobs
from trainer.sweep.checked_jobs import check_jobs
from trainer.sweep.device_pool import devices_needed, threads_per_process
from trainer.sweep.job import Job
from trainer.sweep.scheduler import Limits, Scheduler, TrialSource
from trainer.sweep.spawn import Spawn, fresh
from trainer.sweep.summary import SweepFailed, print_table, sweep_failed
from trainer.sweep.sweep_resume import edits_since, own_first_free, own_folder
from trainer.sweep.waiting_for_prefix import format_saving

OF_THE_SWEEP = ("hydra.mode", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra.run", "hydra/sweeper")
"""Overrides that configure the sweep itself and are not passed on to its jobs."""
GRID = ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "hydra_plugins.grid_sweeper.GridSweeper")
LOOKED_AT = 8
MakeJob = Callable[[int, list[str]], tuple[Job, bool]]
"""Makes a job from its number and its overrides, and says whether it may resume."""


class SweepLauncher(Launcher):
    """Runs the jobs of a sweep, reports each failure as it happens, and sums up in a table and in `sweep.json`."""

    spawn: Spawn = staticmethod(fresh)

    def __init__(self, limits: Limits, shared_prefix: bool = False) -> None:
        if limits.slots < 1:
            raise ConfigError(f"hydra.launcher.jobs={limits.slots} must be at least 1: it is how many jobs run at once")
        if limits.timeout is not None and not 0 < limits.timeout < float("inf"):
            raise ConfigError(
                f"hydra.launcher.timeout={limits.timeout} must be above zero seconds, or null for no limit"
            )
        self.limits, self.shared_prefix = limits, shared_prefix
        self.scheduler: Scheduler | None = None
        self.root: Path | None = None
        self.configs: list[DictConfig] = []
        self.alike = AlikeJobs()

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep Hydra's config and its loader; the task itself runs only in the jobs."""
        check_launcher(config.hydra.launcher)
        keep_search_path(hydra_context.config_loader.get_sources())
        self.loader, self.config, self.program = hydra_context.config_loader, config, program(given_flags())

    @contextmanager
    def connected(self, root: Path) -> Iterator[Spawn]:
        """How jobs are started, for as long as the sweep in the folder `root` runs."""
        yield self.spawn

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run all jobs to their end; a failed one raises `SweepFailed` when its return value is read."""
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        root = Path(str(self.config.hydra.sweep.dir)).resolve()
        with composed_once():
            made = [self.make_job(initial_job_idx + i, list(given)) for i, given in enumerate(job_overrides)]
        batch, resumes = [job for job, _ in made], [goes_on for _, goes_on in made]
        _refuse_shared_folders(batch)
        if is_dry_run():
            return check_jobs(batch, self.spawn)
        if self.shared_prefix:
            self._share_prefixes(batch)
        with self.connected(root) as spawn, own_folder(root) as held:
            scheduler = self.scheduler = self.scheduler or Scheduler(root, self.limits)
            scheduler.spawn = spawn
            scheduler.previous.take_up(batch, resumes, last=self._has_all_jobs)
            self._tell_of_edits([job for job in batch if job.status == "completed"])
            scheduler.run(batch, held)
        print_table(scheduler.jobs, root)
        if self.shared_prefix:
            print(format_saving(scheduler.jobs), flush=True)
        failure = sweep_failed(scheduler.jobs, root)
        scheduler.exit_if_stopped()
        if scheduler.broken:
            raise failure
        return [_job_return(job, failure) for job in batch]

    def search(self, roots: Iterable[Path], start: Callable[[Scheduler, MakeJob], TrialSource]) -> Scheduler:
        """Run the jobs that a source gives until it is over, in the first of the folders that no other sweep holds."""
        if self.shared_prefix:
            raise ConfigError(
                "hydra.launcher.shared_prefix=true is for the jobs of a grid, not for a search: leave it out"
            )
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        with own_first_free(roots) as (root, held), self.connected(root) as spawn:
            self.root = root
            scheduler = Scheduler(root, self.limits, spawn)
            scheduler.run([], held, start(scheduler, self.make_job))
        return scheduler

    def make_job(self, number: int, overrides: list[str]) -> tuple[Job, bool]:
        """The job with its folder by Hydra's naming and the command that starts it, and whether it may resume."""
        if not self.shared_prefix and (alike := self.alike.find(number, overrides)):
            folder, other, resumes = alike
            job = self._job(number, overrides, folder)
            job.need, job.threads = other.need, other.threads
            return job, resumes
        config = self.loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = number, str(number)
            if self.root is not None:
                config.hydra.sweep.dir = str(self.root)
        if self.shared_prefix:
            self.configs.append(config)
        active: Any = HydraConfig.instance()
        outer, active.cfg = active.cfg, config  # `set_config` would copy it
        folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)).resolve()
        active.cfg = outer
        job = self._job(number, overrides, folder)
        self.set_resources(job, config.get("trainer") or {})
        resumes = (config.get("resume") or {}).get("path") == "auto"
        self.alike.keep(overrides, config, job, resumes)
        return job, resumes

    def _job(self, number: int, overrides: list[str], folder: Path) -> Job:
        kept = [o for o in self.config.hydra.overrides.hydra if not o.lstrip("+~").startswith(OF_THE_SWEEP)]
        quoted = QuotedString(text=str(folder), quote=Quote.single).with_quotes()
        plain = [*kept, "hydra.mode=RUN", f"hydra.run.dir={quoted}"]
        return Job(number, list(filter_overrides(overrides)), folder, [*self.program, *overrides, *plain])

    def set_resources(self, job: Job, settings: Any) -> None:
        """Set the devices and threads of a job from its `trainer` settings."""
        job.need = devices_needed(settings, self.limits.devices)
        job.threads = threads_per_process(settings, self.limits.slots) if self.limits.slots > 1 else None

    @property
    def _has_all_jobs(self) -> bool:
        """Whether the first batch holds all jobs, as those of a plain grid do."""
        sweeper = self.config.hydra.sweeper
        return bool(sweeper._target_ in GRID and sweeper.max_batch_size is None)

    def _tell_of_edits(self, completed: Sequence[Job]) -> None:
        """Say where a file of the config has changed since a job of an earlier start; only a few of them are looked at.

        Its overrides are those of now, but what a file says may differ, and its result would count as one of now.
        """
        for job in completed[:: max(1, len(completed) // LOOKED_AT)]:
            now: Any = OmegaConf.to_container(self.loader.load_sweep_config(self.config, job.overrides))
            if changed := edits_since(job, now):
                line = f"warning: job {job.number} was completed with another config ({changed}), and counts as it is"
                print(shown(line), file=sys.stderr, flush=True)
                return

    def _share_prefixes(self, batch: Sequence[Job]) -> None:
        if not self._has_all_jobs:
            raise ConfigError(
                "hydra.launcher.shared_prefix=true takes all jobs of a grid at once: leave out "
                "hydra.sweeper.max_batch_size and other sweepers"
            )
        from trainer.config.settings import settings_of  # late, as `share`: they import all that makes a plan
        from trainer.sweep.shared_prefix import share

        plain = (OmegaConf.masked_copy(one, [str(key) for key in one if key != "hydra"]) for one in self.configs)
        share(batch, [settings_of(one) for one in plain])


def _refuse_shared_folders(batch: Sequence[Job]) -> None:
    seen: dict[Path, int] = {}
    for job in batch:
        if (other := seen.setdefault(job.folder, job.number)) != job.number:
            raise ConfigError(
                f"jobs {other} and {job.number} share the folder {job.folder}: "
                "hydra.sweep.subdir must differ from job to job, as ${hydra.job.num} does"
            )


def _job_return(job: Job, failure: SweepFailed) -> JobReturn:
    completed = job.status == "completed"
    status = JobStatus.COMPLETED if completed else JobStatus.FAILED
    return JobReturn(job.overrides, status=status, _return_value=job.result if completed else failure)
