"""Hydra launcher `submitit_slurm`: every sweep job is a job of Slurm, a plain run with a folder of its own.

It submits through submitit, an optional part, and not through Hydra's launcher of that name: there the job runs in
submitit's process, which requeues on SIGUSR2 without a checkpoint, and composes its config anew with another folder.
"""

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn, configure_log
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.process_launcher import ProcessLauncher, _returned, python_path
from trainer.cli.extras import needed
from trainer.cli.hydra_internals import store_option
from trainer.lr import ConfigError
from trainer.sweep import summary as sweep
from trainer.sweep.job import LOG, RESULT, Job
from trainer.sweep.slurm_job import work

POLL = 2.0
LOOKS = 8
"""So often in a row a job is missing before it is taken for gone, and squeue fails before it is believed."""


@dataclass
class SlurmLauncherConf:
    """The settings of `hydra.launcher`; what is null is left to Slurm.

    `timeout_min`: the time of a job in minutes; one that needs more is requeued and goes on. `nodes`, `tasks_per_node`:
    its ranks; with more than one, take trainer=slurm. `cpus_per_task`: cores of a rank. `gpus_per_node`, `mem_gb`: of
    a job on each node. `signal_delay_s`: seconds before the end of its time at which a job saves and is requeued.
    `array_parallelism`: jobs that run at once. `setup`: lines of shell before a run, as ["module load cuda"].
    `options`: more of sbatch's, as {account: mine, qos: long}.
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
    array_parallelism: int = 256
    setup: list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)


class SlurmOption(SearchPathPlugin):
    """Gives the option its name once all plugins have been read: Hydra's own launcher may have taken it."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        store_option("hydra/launcher", "submitit_slurm", SlurmLauncherConf)


class SlurmLauncher(ProcessLauncher):
    """Submits all jobs as one array, and waits for them; they outlive it."""

    def __init__(
        self,
        timeout_min: int,
        nodes: int,
        tasks_per_node: int,
        cpus_per_task: int | None,
        gpus_per_node: int | None,
        mem_gb: float | None,
        partition: str | None,
        signal_delay_s: int,
        array_parallelism: int,
        setup: Sequence[str] | None,
        options: DictConfig,
    ) -> None:
        super().__init__(jobs=1, devices=[], timeout=None, fail_fast=False)
        more: Any = OmegaConf.to_container(options, resolve=True)
        asked = {
            "timeout_min": timeout_min,
            "nodes": nodes,
            "tasks_per_node": tasks_per_node,
            "cpus_per_task": cpus_per_task,
            "gpus_per_node": gpus_per_node,
            "mem_gb": mem_gb,
            "slurm_partition": partition,
            "slurm_signal_delay_s": signal_delay_s,
            "slurm_array_parallelism": array_parallelism,
            "slurm_setup": list(setup) if setup is not None else None,
            "slurm_additional_parameters": {"requeue": True, **more},
        }
        self.asked = {name: value for name, value in asked.items() if value is not None}
        self.done: list[Job] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run all jobs to their end; a failed one raises `SweepFailed` when its return value is asked for."""
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        root = Path(str(self.config.hydra.sweep.dir)).resolve()
        made, again = zip(*(self._job(initial_job_idx + i, list(given)) for i, given in enumerate(job_overrides)))
        for job, goes_on in zip(made, again):
            if (job.folder / RESULT).exists() and not goes_on:
                raise ConfigError(
                    f"{job.folder} holds the {RESULT} of an earlier job: choose another name, or resume=auto"
                )
        self.done += made
        sweep.label(self.done)
        batch = [job for job in made if not job.adopt()]
        handles = self._submit(batch, root) if batch else []
        print(f"{len(batch)} jobs in Slurm: {', '.join(handle.job_id for handle in handles)}", flush=True)
        waiting = dict(zip((handle.job_id for handle in handles), zip(batch, handles)))
        missed = dict.fromkeys(waiting, 0)
        while waiting:
            time.sleep(POLL)
            known = _in_queue()
            for name, (job, handle) in list(waiting.items()):
                missed[name] = 0 if name in known else missed[name] + 1
                if missed[name] >= LOOKS or _results(handle):
                    _judge(job, handle)
                    del waiting[name]
                    sweep.tell(job)
                    sweep.write(self.done, root)
        sweep.show(self.done, root)
        return [_returned(job, sweep.failure(self.done, root)) for job in made]

    def _submit(self, batch: list[Job], root: Path) -> list[Any]:
        submitit = needed("submitit", "hydra/launcher=submitit_slurm")
        try:
            executor = submitit.AutoExecutor(folder=root / ".submitit" / "%j", cluster="slurm")
        except RuntimeError as error:
            raise ConfigError(
                f"hydra/launcher=submitit_slurm: {error}: submit from a machine that has srun."
            ) from error
        executor.update_parameters(name=str(self.config.hydra.job.name), **self.asked)
        os.environ["PYTHONPATH"] = python_path(os.environ.get("PYTHONPATH"))
        stamps = [f"{root.name}-{job.number}" for job in batch]
        return list(executor.map_array(work, [job.command for job in batch], [job.folder for job in batch], stamps))


def _in_queue() -> set[str]:
    """The jobs that Slurm knows, as `12_0` where they are of an array; a controller that restarts is asked again."""
    for look in range(LOOKS):
        time.sleep(POLL if look else 0)
        done = subprocess.run(["squeue", "--noheader", "--array", "--format=%i"], capture_output=True, text=True)
        if not done.returncode:
            return set(done.stdout.split())
    raise RuntimeError(f"squeue: {done.stderr.strip()}: the jobs go on, and each leaves its {RESULT}")


def _results(handle: Any) -> bool:
    return all(handle.task(i).paths.result_pickle.exists() for i in range(handle.num_tasks))


def _code(task: Any) -> int:
    """The exit code of a task; 1 where submitit could not run it, as in a folder that cannot be written."""
    try:
        return int(task.result())
    except Exception:  # of whatever kind: its log tells
        return 1


def _judge(job: Job, handle: Any) -> None:
    """Completed takes an exit code of 0 of each task, and a result that says so."""
    codes = [_code(handle.task(i)) for i in range(handle.num_tasks)] if _results(handle) else []
    path = job.folder / RESULT
    job.result = json.loads(path.read_text()) if path.exists() else {}
    said = job.result.get("status")
    job.seconds = job.result.get("seconds", 0.0)
    job.status = "completed" if codes and not any(codes) and said == "completed" else "failed"
    if job.status == "failed":
        left = f"exit code {max(codes)}" if codes else "gone from Slurm without a result"
        job.error = f"{left}: {job.result.get('error') or said or f'see {job.folder / LOG}'}"
