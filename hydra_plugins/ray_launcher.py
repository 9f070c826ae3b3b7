"""Hydra launcher `ray`: every sweep job is a plain run on whichever machine Ray gives it, with a folder of its own.

Ray is an optional part, and only says where and when: the run is no task inside Ray's worker but a process beside it,
which the driver hears of through Ray and judges by exit code and `result.json`, as those that it starts itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn
from hydra.plugins.search_path_plugin import SearchPathPlugin

from hydra_plugins.process_launcher import ProcessLauncher
from hydra_plugins.ray_cluster import Ray
from trainer.cli.hydra_internals import store_option
from trainer.lr import ConfigError
from trainer.sweep.job import Job
from trainer.sweep.scheduler import Scheduler
from trainer.sweep.sweep_resume import PreviousJobs


@dataclass
class RayLauncherConf:
    """The settings of `hydra.launcher`.

    `address`: null for a Ray on this machine that lives as long as the sweep, `auto` or HOST:PORT for a cluster that
    this machine belongs to; its machines share the project's folder and the sweep's. `cpus`, `gpus`: what a job takes
    (a GPU may be parted: 0.5). `jobs`: how many are given to Ray at once. `timeout`: seconds after which a job that
    runs is ended, null for never. `fail_fast`: the first failure ends the sweep.
    """

    _target_: str = "hydra_plugins.ray_launcher.RayLauncher"
    address: str | None = None
    cpus: int = 1
    gpus: float = 0
    jobs: int = 256
    timeout: float | None = None
    fail_fast: bool = False


class RayOption(SearchPathPlugin):
    """Gives the option its name once all plugins have been read: Hydra's own launcher may have taken it."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        store_option("hydra/launcher", "ray", RayLauncherConf)


class RayLauncher(ProcessLauncher):
    """Gives all jobs to Ray; what the crew tells, writes, adopts and ends is as on one machine."""

    def __init__(
        self, address: str | None, cpus: int, gpus: float, jobs: int, timeout: float | None, fail_fast: bool
    ) -> None:
        super().__init__(jobs, [], timeout, fail_fast)
        if cpus < 1:
            raise ConfigError(f"hydra.launcher.cpus={cpus} must be at least 1: it is how many cores a job takes")
        if not (0 <= gpus < 1 or (gpus >= 1 and float(gpus).is_integer())):
            raise ConfigError(f"hydra.launcher.gpus={gpus} must be a whole number, or a part of one GPU as 0.5")
        if address not in (None, "auto") and not re.fullmatch(r"[^:/\s]+:\d{1,5}", str(address)):
            raise ConfigError(
                f"hydra.launcher.address={address} must be auto or HOST:PORT, on a machine of the cluster, or null"
            )
        self.ray = Ray(address, cpus, gpus)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run all jobs to their end; a failed one raises `SweepFailed` when its return value is asked for."""
        with self.ray.connected():
            return super().launch(job_overrides, initial_job_idx)

    def _crew(self, root: Path) -> Scheduler:
        return Scheduler(root, PreviousJobs(root), self.jobs, [], self.timeout, self.fail_fast, spawn=self.ray)

    def _job(self, number: int, overrides: list[str]) -> tuple[Job, bool]:
        job, again = super()._job(number, overrides)
        job.need, job.threads = 0, self.ray.cpus
        return job, again
