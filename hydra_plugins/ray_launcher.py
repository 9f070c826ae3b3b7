"""Hydra launcher `ray`: every sweep job is a plain run on whichever machine Ray gives it, with a folder of its own."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from trainer.cli.hydra_internals import store_option
from trainer.lr import ConfigError
from trainer.sweep.job import Job
from trainer.sweep.launcher import SweepLauncher
from trainer.sweep.ray_cluster import Ray
from trainer.sweep.scheduler import Limits
from trainer.sweep.spawn import Spawn


@dataclass
class RayLauncherConf:
    """The settings of `hydra.launcher`.

    `address`: null for a Ray on this machine that lives as long as the sweep, `auto` or HOST:PORT for a cluster that
    this machine belongs to; its machines share the project's folder and the sweep's. `cpus`: of a job. `gpus`: of a
    job; one may be divided: 0.5. `jobs`: how many are submitted to Ray at once. `timeout`: seconds after which a job
    that runs is ended, null for never. `fail_fast`: the first failure ends the sweep.
    """

    _target_: str = "hydra_plugins.ray_launcher.RayLauncher"
    address: str | None = None
    cpus: int = 1
    gpus: float = 0
    jobs: int = 256
    timeout: float | None = None
    fail_fast: bool = False


class RayOption(SearchPathPlugin):
    """Stores the option once all plugins have been read: Hydra's own launcher may have taken the name."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        store_option("hydra/launcher", "ray", RayLauncherConf)


class RayLauncher(SweepLauncher):
    """Submits all jobs to Ray."""

    def __init__(
        self, address: str | None, cpus: int, gpus: float, jobs: int, timeout: float | None, fail_fast: bool
    ) -> None:
        super().__init__(Limits(jobs, (), timeout, fail_fast))
        if cpus < 1:
            raise ConfigError(f"hydra.launcher.cpus={cpus} must be at least 1: it is how many cores a job takes")
        if not (0 <= gpus < 1 or (gpus >= 1 and float(gpus).is_integer())):
            raise ConfigError(f"hydra.launcher.gpus={gpus} must be a whole number, or a part of one GPU as 0.5")
        if address not in (None, "auto") and not re.fullmatch(r"[^:/\s]+:\d{1,5}", str(address)):
            raise ConfigError(
                f"hydra.launcher.address={address} must be auto or HOST:PORT, on a machine of the cluster, or null"
            )
        self.ray = Ray(address, cpus, gpus)

    @contextmanager
    def connected(self, root: Path) -> Iterator[Spawn]:
        """Ray, for as long as the sweep runs."""
        with self.ray.connected():
            yield self.ray

    def set_resources(self, job: Job, settings: Any) -> None:
        """Ray finds the devices; a process of the job has as many threads as cores."""
        job.threads = self.ray.cpus
