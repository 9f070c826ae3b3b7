"""How the driver of a sweep starts a job: what all ways have in common, and the simplest of them.

A scheduler starts jobs by a `Spawn`: here a fresh interpreter, in `fork_server` a fork of a process that has imported
everything, in `ray_cluster` and `slurm_cluster` a process on another machine.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from trainer.sweep.watchdog import group_runs, signal_group

PROJECT = Path(__file__).parents[2]


class Process(Protocol):
    """A started job: its process id, which is also its process group, and its exit code once it has ended.

    The id of a process on another machine is 0. `waited`: seconds that the job has waited for a machine. A signal
    reaches all processes of the job.
    """

    pid: int

    @property
    def waited(self) -> float: ...

    def poll(self) -> int | None: ...

    def send(self, signum: int) -> None: ...

    def alive(self) -> bool: ...


class Spawn(Protocol):
    """Starts a command with an environment as the leader of a session, and appends its output to a log."""

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process: ...


class GroupLeader:
    """A process of this machine that leads a process group."""

    pid: int
    waited = 0.0

    def send(self, signum: int) -> None:
        """Send a signal to the group."""
        signal_group(self.pid, signum)

    def alive(self) -> bool:
        """Whether a process of the group runs."""
        return group_runs(self.pid)


class FreshProcess(GroupLeader, subprocess.Popen[bytes]):
    """A job in an interpreter of its own."""


def fresh(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """Start the command in a fresh interpreter."""
    with log.open("ab") as file:
        return FreshProcess(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def python_path(inherited: str | None) -> str:
    """The PYTHONPATH of a job that may start on another machine: this project, then what was there before."""
    return os.pathsep.join([str(PROJECT), *filter(None, [inherited])])
