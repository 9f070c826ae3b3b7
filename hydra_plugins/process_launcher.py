"""Hydra launcher `process`: every sweep job is a process of this machine, a plain run with a folder of its own."""

from dataclasses import dataclass
from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from trainer.cli.hydra_internals import store_option
from trainer.sweep.device_pool import parse_devices
from trainer.sweep.fork_server import ForkServer, modules_of
from trainer.sweep.launcher import SweepLauncher
from trainer.sweep.scheduler import Limits


@dataclass
class ProcessLauncherConf:
    """The settings of `hydra.launcher`.

    `jobs`: how many run at once, as far as there are devices. `devices`: the GPUs that they share, as [0,1,3]; each
    belongs to one job at a time, which has as many as its trainer.devices. `timeout`: seconds after which a job is
    ended, null for never. `fail_fast`: the first failure ends the sweep. `fork`: fork each job from a process that has
    imported what it needs, which saves most of the seconds before the first update. `shared_prefix`: of jobs that
    differ in trainer.duration only, the longest is trained whole, and the others start from it at the last update
    that both have in common.
    """

    _target_: str = "hydra_plugins.process_launcher.ProcessLauncher"
    jobs: int = 1
    devices: Any = "auto"
    timeout: float | None = None
    fail_fast: bool = False
    fork: bool = False
    shared_prefix: bool = False


store_option("hydra/launcher", "process", ProcessLauncherConf)


class ProcessLauncher(SweepLauncher):
    """Starts each job in a fresh interpreter, or forks it."""

    def __init__(
        self,
        jobs: int,
        devices: Any,
        timeout: float | None,
        fail_fast: bool,
        fork: bool = False,
        shared_prefix: bool = False,
    ) -> None:
        names = parse_devices(OmegaConf.to_container(devices) if OmegaConf.is_config(devices) else devices)
        super().__init__(Limits(jobs, names, timeout, fail_fast), shared_prefix)
        self.fork = fork

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives; the fork server imports what the config names."""
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        if self.fork:
            self.spawn = ForkServer(modules_of(OmegaConf.to_container(config)))
