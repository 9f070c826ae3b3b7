"""Hydra launcher `in_process`: one process trains all sweep jobs, alike ones as one, each with a folder of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.cli.hydra_internals import store_option
from trainer.lr import ConfigError
from trainer.sweep.job import Job
from trainer.sweep.launcher import SweepLauncher
from trainer.sweep.scheduler import Limits
from trainer.sweep.spawn import Spawn
from trainer.sweep.sweep_resume import own_folder


@dataclass
class InProcessLauncherConf:
    """The settings of `hydra.launcher`.

    `jobs`: how many the process is given at once; a search learns only from those that have ended. `timeout`: seconds
    after which a job that trains is ended, null for never. `fail_fast`: the first failure ends the sweep. `stack`: jobs
    that differ in numbers only train as one, where a net can.
    """

    _target_: str = "hydra_plugins.in_process_launcher.InProcessLauncher"
    jobs: int = 64
    timeout: float | None = None
    fail_fast: bool = False
    stack: bool = True


store_option("hydra/launcher", "in_process", InProcessLauncherConf)


class InProcessLauncher(SweepLauncher):
    """Gives all jobs to one process."""

    def __init__(self, jobs: int, timeout: float | None, fail_fast: bool, stack: bool = True) -> None:
        super().__init__(Limits(jobs, (), timeout, fail_fast))
        self.stack = stack

    @contextmanager
    def connected(self, root: Path) -> Iterator[Spawn]:
        """A worker, for as long as the sweep runs; it holds the lock of the folder to its end."""
        from trainer.sweep.worker import Worker  # late: Hydra imports this file at each start

        def held() -> list[int]:
            with own_folder(root) as files:
                return list(files)

        worker = Worker(held, self.stack)
        try:
            yield worker
        finally:
            worker.close()

    def set_resources(self, job: Job, settings: Any) -> None:
        """The process has all cores and the first device; a job with several processes is refused."""
        for key in ("devices", "nodes"):
            if settings.get(key, 1) not in (1, "1", "auto"):
                raise ConfigError(
                    f"trainer.{key}={settings.get(key)}: hydra/launcher=in_process trains all jobs in one process; "
                    "take hydra/launcher=process"
                )
