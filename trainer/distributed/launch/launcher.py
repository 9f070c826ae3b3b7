"""Which program started the processes of this run, and how many there are. Standard library only.

torchrun, srun and our own launcher say so in the environment, and so does a person who starts the ranks by hand. Other
variables of that kind give no process a rank.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from trainer.files.atomic import write_text
from trainer.files.process import process_runs
from trainer.lr import ConfigError

JOB_FILE = ".job"
LAUNCHERS = {"torchrun": "torchrun --nproc-per-node N -m cadence train", "slurm": "srun cadence train"}
"""The launchers that `trainer.devices` and `trainer.nodes` may name, and the command that each of them needs."""
PARENT = "CADENCE_PARENT"
"""Set by our own launcher: the process that starts other ranks, and its own rank."""
SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_SIZE")
"""Variables in which launchers say how many processes they have started."""
READ_BY_OTHERS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "JSM_NAMESPACE_RANK", "SLURM_PROCID")
"""Variables that Lightning takes for a rank, some of them while it is imported."""
MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""Where the ranks meet."""

_children: set[tuple[int, int]] = set()


def started_by() -> str:
    """What made this process a rank.

    torchrun or slurm; "cadence" for a rank that rank 0 started; "hand" where all variables of a rank are set, "nodes"
    where a person started the first process of each node; empty for a process that nothing of all this started.
    """
    env, (parent, _) = os.environ, _parent()
    if "TORCHELASTIC_RUN_ID" in env and "RANK" in env:
        return "torchrun"
    if _is_child(parent):
        return "cadence"
    step = "SLURM_STEP_ID" in env and "SLURM_PROCID" in env
    if step and _given("SLURM_STEP_NUM_TASKS") > 1:
        return "slurm"
    meets = all(name in env for name in MEETING)
    if meets and _given("WORLD_SIZE") > 1 and "RANK" in env and "LOCAL_RANK" in env:
        return "hand"
    if meets and "NODE_RANK" in env and ("LOCAL_RANK" not in env or parent == os.getpid()):
        return "" if parent == os.getpid() and _given("NODE_RANK") == 0 else "nodes"
    return "slurm" if step else ""


def launcher() -> str | None:
    """`torchrun` or `slurm`; None for a single process, and for one that our own launcher or a person started."""
    by = started_by()
    return by if by in LAUNCHERS else None


def rank() -> int:
    """The rank of this process, of a first process of a node at least that it is not the first; 0 for a single one."""
    by = started_by()
    if by == "cadence":
        return _parent()[1] + _given("LOCAL_RANK")
    return _given({"torchrun": "RANK", "hand": "RANK", "slurm": "SLURM_PROCID", "nodes": "NODE_RANK"}.get(by, ""))


def _given(name: str) -> int:
    """A number of the environment; 0 where it is none: `number_of` refuses that, and errors are shown before it."""
    given = os.environ.get(name, "")
    return int(given) if given.isdecimal() else 0


def _is_child(parent: int) -> bool:
    """Whether this is a rank that `parent` started; it stays one when `parent` dies."""
    if not parent or not _given("LOCAL_RANK"):
        return False
    if parent == os.getppid():
        _children.add((os.getpid(), parent))
    return (os.getpid(), parent) in _children


def _parent() -> tuple[int, int]:
    """The process that starts other ranks, and its rank; zeros where there is none."""
    words = os.environ.get(PARENT, "").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 and all(map(str.isdecimal, words)) else (0, 0)


def become_parent(own_rank: int) -> None:
    """Note that this process starts the ranks after `own_rank`."""
    os.environ[PARENT] = f"{os.getpid()} {own_rank}"


def tell_ignored_ranks(trains: bool = True) -> None:
    """Do what `ignore_other_ranks` does, and print its line."""
    if ignored := ignore_other_ranks(trains):
        print(ignored, file=sys.stderr, flush=True)


def ignore_other_ranks(trains: bool = True) -> str:
    """Remove from the environment what would give this process a rank that no launcher has given it.

    Lightning reads these variables while it is imported, so this comes first. A command that does not train is never
    one of several ranks: nothing is refused, and ranks by hand are ignored, too.

    Returns:
        A line that names what is ignored; empty where it says nothing else than what holds.

    Raises:
        ConfigError: a variable is no number; or a program has started several processes, each of which would train
            alone.
    """
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") if trains else ():
        number_of(name, 0)
    parent = _parent()[0]
    if parent and started_by() != "cadence" and parent != os.getpid():  # a program that a rank has started
        if os.getppid() != parent and _given("LOCAL_RANK") and not process_runs(parent):
            sys.exit(f"process {parent}, which has started this rank, has ended")
        for name in (PARENT, "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", *MEETING):
            os.environ.pop(name, None)
    by = started_by()
    by = "" if by in ("hand", "nodes") and not trains else by
    if by not in ("", "slurm") or _parent()[0] == os.getpid():
        return ""
    world = world_size()
    several = {name: size for name in SIZES if (size := _given(name)) > 1}
    for name, size in several.items() if trains and world == 1 else ():
        raise ConfigError(
            f"{name}={size}: each of {size} processes would train alone: start them with torchrun (trainer=torchrun) "
            "or srun (trainer=slurm), or one process with trainer=ddp; by hand, set RANK, LOCAL_RANK, WORLD_SIZE, "
            "MASTER_ADDR and MASTER_PORT in each."
        )
    ranks = [name for name in READ_BY_OTHERS if not (by == "slurm" and name == "SLURM_PROCID")]
    ignored = [f"{name}={_given(name)}" for name in (*ranks, "OMPI_COMM_WORLD_RANK", "PMI_RANK") if _given(name)]
    for name in (*ranks, "WORLD_SIZE", *(MEETING if by == "" else ())):
        os.environ.pop(name, None)
    if world > 1 or not ignored:
        return ""
    return f"{', '.join(ignored)} in the environment: ignored, since neither torchrun nor srun has started this process"


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
    if all(isinstance(value, int) for value in asked):
        _check_by_hand(*asked)
    return {}


def _check_by_hand(devices: int, nodes: int) -> None:
    """Refuse processes that a person has started, where this run has another number of them."""
    started, world = _given("WORLD_SIZE"), devices * nodes
    asked = f"trainer.devices={devices} × trainer.nodes={nodes} are {world}"
    if started_by() == "hand" and started != world:
        raise ConfigError(
            f"WORLD_SIZE={started}, but {asked}: each process would train alone: set trainer=ddp and both numbers."
        )
    if started_by() == "nodes" and nodes == 1 and (_given("NODE_RANK") or started > world):
        raise ConfigError(
            f"NODE_RANK={_given('NODE_RANK')}, but {asked}: each node would train alone: set trainer.nodes."
        )


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
    path = folder / JOB_FILE
    return started_again() and path.exists() and path.read_text(encoding="utf-8") == job_id()


def started_again() -> bool:
    """Whether Slurm or torchrun has started this job before."""
    names = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
    return any(os.environ.get(name, "0") not in ("", "0") for name in names)


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
