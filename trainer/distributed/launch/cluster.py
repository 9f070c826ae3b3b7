"""Who has started the processes of this run, and how many there are. Standard library only.

torchrun and srun tell it in the environment.
"""

import os
import re
from pathlib import Path
from typing import Any

from trainer.distributed.launch.launched import launcher
from trainer.lr import ConfigError

OWNER = ".job"
LAUNCHERS = {"torchrun": "torchrun --nproc-per-node N train.py", "slurm": "srun python train.py"}
"""The words that `trainer.devices` and `trainer.nodes` take, and the command that they need."""


def placed(values: dict[str, Any]) -> dict[str, int]:
    """The devices a node and the nodes of `trainer`, as numbers; refused where what started this says otherwise."""
    ours = launcher()
    words = [values[key] for key in ("devices", "nodes")]
    asked = next((word for word in words if isinstance(word, str) and word in LAUNCHERS), None)
    if asked is not None:
        if words != [asked, asked]:
            raise ConfigError(
                f"trainer.devices={words[0]} and trainer.nodes={words[1]}: take {asked} for both, or numbers."
            )
        if ours != asked:
            raise ConfigError(
                f"trainer={asked}, but {asked} has not started this: use {LAUNCHERS[asked]}, or trainer=ddp."
            )
        devices, nodes = _torchrun() if asked == "torchrun" else _slurm()
        return {"devices": devices, "nodes": nodes}
    if ours is not None and all(isinstance(word, int) for word in words):
        started, world = processes(), words[0] * words[1]
        if started != world and not (ours == "slurm" and started == 1 and words[1] == 1):
            raise ConfigError(
                f"{ours} has started {started} processes, but trainer.devices={words[0]} × trainer.nodes={words[1]} "
                f"are {world}: take trainer={ours}."
            )
    return {}


def processes() -> int:
    """How many ranks the launcher has started."""
    ours = launcher()
    return _number({"torchrun": "WORLD_SIZE", "slurm": "SLURM_STEP_NUM_TASKS"}[ours]) if ours else 1


def job() -> str | None:
    """What a requeued or restarted process has in common with the one before it."""
    env = os.environ
    if "SLURM_JOB_ID" in env:
        return f"slurm {env['SLURM_JOB_ID']}"
    return f"torchrun {env['TORCHELASTIC_RUN_ID']}" if launcher() == "torchrun" else None


def goes_on(folder: Path) -> bool:
    """Whether Slurm has requeued this job, or torchrun has started its ranks again, and the run in `folder` is theirs.

    Such a run goes on from its newest checkpoint, whatever `resume` says: it would be refused, or start again.
    """
    names, path = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"), folder / OWNER
    again = any(os.environ.get(name, "0") not in ("", "0") for name in names)
    return again and path.exists() and path.read_text(encoding="utf-8") == job()


def claim(folder: Path) -> None:
    """Note in the folder of a run which job has begun it; a file that no later part of the run moves away."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / OWNER).write_text(job() or "", encoding="utf-8")


def _torchrun() -> tuple[int, int]:
    devices, nodes, world = map(_number, ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "WORLD_SIZE"))
    if devices * nodes != world:
        raise ConfigError(
            f"torchrun has started {world} processes on {nodes} nodes, {devices} of them on this one: "
            "start as many on each, or the batch of a process cannot be told."
        )
    return devices, nodes


def _slurm() -> tuple[int, int]:
    told = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts = [int(n) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", told) for _ in range(int(times or 1))]
    if not counts or len(set(counts)) > 1:
        raise ConfigError(
            f"SLURM_STEP_TASKS_PER_NODE={told} tasks are not as many on each node: set --ntasks-per-node."
        )
    return counts[0], len(counts)


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(f"{name}={value!r} is no number of processes: start the run with torchrun or srun.")
    return int(value)
