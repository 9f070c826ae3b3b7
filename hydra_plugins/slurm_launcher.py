"""Hydra launcher `submitit_slurm`: every sweep job is a job of Slurm, a plain run with a folder of its own.

It submits through submitit, an optional package, and not through Hydra's launcher of that name: there the job runs in
submitit's process, which requeues on SIGUSR2 without a checkpoint, and composes its config again with another folder.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from trainer.cli.hydra_internals import given_flags, store_option
from trainer.lr import ConfigError
from trainer.sweep.job import Job
from trainer.sweep.launcher import SweepLauncher
from trainer.sweep.scheduler import Limits
from trainer.sweep.slurm_cluster import Slurm
from trainer.sweep.spawn import Spawn


@dataclass
class SlurmLauncherConf:
    """The settings of `hydra.launcher`; what is null is left to Slurm.

    `timeout_min`: the time of a job in minutes; one that needs more is requeued and goes on. `nodes`: of a job.
    `tasks_per_node`: its ranks on each; with several ranks, take trainer=slurm. `cpus_per_task`: cores of a rank.
    `gpus_per_node`, `mem_gb`: of a job on each node. `partition`: where it runs. `signal_delay_s`: seconds before the
    end of its time at which a job saves and is requeued. `setup`: lines of shell before a run, as ["module load cuda"],
    from the command line only. `options`: more of sbatch's, as {account: mine, qos: long}. `jobs`: how many are
    submitted at once; a search learns only from those that have ended. `timeout`: seconds of running, requeues
    included, after which a job is ended for good, null for never. `fail_fast`: the first failure ends the sweep.
    """

    _target_: str = "hydra_plugins.slurm_launcher.SlurmLauncher"
    timeout_min: int = 60
    nodes: int = 1
    tasks_per_node: int = 1
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem_gb: float | None = None
    partition: str | None = None
    signal_delay_s: int = 120
    setup: list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    jobs: int = 256
    timeout: float | None = None
    fail_fast: bool = False


class SlurmOption(SearchPathPlugin):
    """Stores the option once all plugins have been read: Hydra's own launcher may have taken the name."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        store_option("hydra/launcher", "submitit_slurm", SlurmLauncherConf)


class SlurmLauncher(SweepLauncher):
    """Submits each job to Slurm and waits for it."""

    def __init__(self, **settings: Any) -> None:
        conf = SlurmLauncherConf(**settings)
        super().__init__(Limits(conf.jobs, (), conf.timeout, conf.fail_fast))
        more: Any = OmegaConf.to_container(conf.options) if OmegaConf.is_config(conf.options) else conf.options
        for name, value in more.items():
            if {"\n", "\r"} & set(f"{name}{value}"):
                raise ConfigError(f"hydra.launcher.options.{name!s} has more than one line: give one option of sbatch.")
        executor = {
            "timeout_min": conf.timeout_min,
            "nodes": conf.nodes,
            "tasks_per_node": conf.tasks_per_node,
            "cpus_per_task": conf.cpus_per_task,
            "gpus_per_node": conf.gpus_per_node,
            "mem_gb": conf.mem_gb,
            "slurm_partition": conf.partition,
            "slurm_signal_delay_s": conf.signal_delay_s,
            "slurm_setup": list(conf.setup) if conf.setup is not None else None,
            "slurm_additional_parameters": {"requeue": True, **more},
        }
        self.executor = {name: value for name, value in executor.items() if value is not None}
        self.slurm: Slurm | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives. Lines of shell count from the command line only: a file may come from others."""
        typed = [word.lstrip("+") for word in given_flags().overrides] if "slurm_setup" in self.executor else []
        if "slurm_setup" in self.executor and not any(word.startswith("hydra.launcher.setup=") for word in typed):
            raise ConfigError("hydra.launcher.setup, lines of shell, stands in a file: give it on the command line.")
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    @contextmanager
    def connected(self, root: Path) -> Iterator[Spawn]:
        """Slurm; jobs of batches that follow each other are submitted by the same connection."""
        self.slurm = self.slurm or Slurm(root, str(self.config.hydra.job.name), self.executor)
        self.slurm.connect()
        yield self.slurm

    def set_resources(self, job: Job, settings: Any) -> None:
        """Slurm finds the devices, and gives each process its cores."""
