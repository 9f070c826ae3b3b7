"""Which program started the processes of this run, and how many there are. Standard library only.

torchrun and srun say so in the environment.
"""

import os
import re
from pathlib import Path
from typing import Any

from trainer.files.atomic import write_text
from trainer.lr import ConfigError

JOB_FILE = ".job"
LAUNCHERS = {"torchrun": "torchrun --nproc-per-node N -m cadence train", "slurm": "srun cadence train"}
"""The launchers that `trainer.devices` and `trainer.nodes` may name, and the command that each of them needs."""


def launcher() -> str | None:
    """`torchrun` or `slurm`; None for a single process, and for one that Lightning's launcher or a person started."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env and "RANK" in env:
        return "torchrun"
    if "SLURM_STEP_ID" in env and "SLURM_PROCID" in env and "LOCAL_RANK" not in env:
        return "slurm"
    return None


def rank() -> int:
    """The rank that torchrun, Lightning's launcher or Slurm gave this process; 0 in a single process."""
    given = next(filter(None, map(os.environ.get, ("RANK", "LOCAL_RANK", "SLURM_PROCID"))), "0")
    return int(given) if given.isdecimal() else 0  # `number_of` refuses it; this is asked for while errors are told


def number_of(name: str, default: int) -> int:
    """A number that a launcher has put into the environment. Raises ConfigError where it is none."""
    value = os.environ.get(name)
    if value is not None and not value.isdecimal():
        raise ConfigError(f"{name}={value!r} in the environment is not a number: unset it, or use torchrun or srun.")
    return default if value is None else int(value)


def world_size() -> int:
    """How many ranks the launcher started."""
    ours = launcher()
    return _number({"torchrun": "WORLD_SIZE", "slurm": "SLURM_STEP_NUM_TASKS"}[ours]) if ours else 1


def devices_and_nodes(values: dict[str, Any]) -> dict[str, int]:
    """`trainer.devices` and `trainer.nodes` as numbers where `values` names a launcher for them; else nothing.

    Raises:
        ConfigError: the launcher is another one, or started another number of processes.
    """
    ours = launcher()
    asked = [values[key] for key in ("devices", "nodes")]
    named = next((value for value in asked if isinstance(value, str) and value in LAUNCHERS), None)
    if named is not None:
        if asked != [named, named]:
            raise ConfigError(
                f"trainer.devices={asked[0]} and trainer.nodes={asked[1]}: take {named} for both, or numbers."
            )
        if ours != named:
            raise ConfigError(
                f"trainer={named}, but {named} has not started this: use {LAUNCHERS[named]}, or trainer=ddp."
            )
        devices, nodes = _torchrun() if named == "torchrun" else _slurm()
        return {"devices": devices, "nodes": nodes}
    if ours is not None and all(isinstance(value, int) for value in asked):
        started, world = world_size(), asked[0] * asked[1]
        if started != world and not (ours == "slurm" and started == 1 and asked[1] == 1):
            raise ConfigError(
                f"{ours} has started {started} processes, but trainer.devices={asked[0]} × trainer.nodes={asked[1]} "
                f"are {world}: take trainer={ours}."
            )
    return {}


def job_id() -> str | None:
    """The id of the job, which a requeued or restarted process shares with the one before it."""
    env = os.environ
    if "SLURM_JOB_ID" in env:
        return f"slurm {env['SLURM_JOB_ID']}"
    return f"torchrun {env['TORCHELASTIC_RUN_ID']}" if launcher() == "torchrun" else None


def is_restart(folder: Path) -> bool:
    """Whether Slurm requeued this job, or torchrun restarted its ranks, and this job began the run in `folder`.

    Such a run goes on from its newest checkpoint, whatever `resume` says. Otherwise it would be refused, or would
    start from the beginning.
    """
    names, path = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"), folder / JOB_FILE
    again = any(os.environ.get(name, "0") not in ("", "0") for name in names)
    return again and path.exists() and path.read_text(encoding="utf-8") == job_id()


def write_job(folder: Path) -> None:
    """Write the id of this job into the folder of the run that it begins; nothing moves this file later."""
    write_text(folder / JOB_FILE, job_id() or "")


def _torchrun() -> tuple[int, int]:
    devices, nodes, world = map(_number, ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "WORLD_SIZE"))
    if devices * nodes != world:
        raise ConfigError(
            f"torchrun has started {world} processes on {nodes} nodes, {devices} of them on this one: "
            "start the same number on each node."
        )
    return devices, nodes


def _slurm() -> tuple[int, int]:
    per_node = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    counts = [int(n) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", per_node) for _ in range(int(times or 1))]
    if not counts or len(set(counts)) > 1:
        raise ConfigError(
            f"SLURM_STEP_TASKS_PER_NODE={per_node}: the nodes do not have the same number of tasks: "
            "set --ntasks-per-node."
        )
    return counts[0], len(counts)


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(f"{name}={value!r} is not a number of processes: start the run with torchrun or srun.")
    return int(value)
