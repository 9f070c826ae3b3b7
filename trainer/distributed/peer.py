"""One process of a run as the others know it, and how it can be lost."""

import os
import signal
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.files.process import process_state

DONE, FAILED, LEFT, SILENT, DEAD = "done", "failed", "left", "silent", "dead"


@dataclass(frozen=True)
class Peer:
    """A rank, its host, and its process; `machine` names the boot and namespace in which the process id is valid."""

    rank: int
    host: str
    pid: int
    machine: str

    @classmethod
    def this_process(cls, rank: int) -> "Peer":
        """This process as `rank`."""
        return cls(rank, socket.gethostname(), os.getpid(), _machine())

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"

    @property
    def on_this_machine(self) -> bool:
        """Whether it is another process of this machine."""
        return bool(self.machine) and self.machine == _machine() and self.pid != os.getpid()

    def is_running(self) -> bool:
        """Whether it is a process of this machine that is not stopped."""
        return self.on_this_machine and process_state(self.pid) not in ("", "T", "t", "Z", "X")

    def kill(self) -> None:
        """Kill this peer where it runs on this machine: a stopped process obeys no other signal."""
        if self.on_this_machine:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except OSError:
                return


@dataclass(frozen=True)
class LostPeer:
    """A rank that no longer takes part: how it was lost, the message, and the exit code of the whole run."""

    peer: Peer
    kind: str
    text: str
    code: int = 1

    @property
    def is_gone(self) -> bool:
        """Whether it died or hangs, in place of an error or a signal that it told of."""
        return self.kind in (SILENT, DEAD)

    def to_dict(self) -> dict[str, Any]:
        """This value as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "LostPeer":
        """The value whose `to_dict` another process sent."""
        return cls(**{**data, "peer": Peer(**data["peer"])})


class RankLost(RuntimeError):
    """Another process of the run has failed, died or stopped answering; `is_gone`: by no error of the run's code.

    `advice` says how to go on.
    """

    is_gone, advice = False, ""


def describe_exit(code: int) -> str:
    """How a process ended, by the code that its parent sees."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def is_stopped(pid: int) -> bool:
    """Whether a process of this machine is stopped, as by SIGSTOP; False where the system does not say."""
    return process_state(pid) in ("T", "t")


def _machine() -> str:
    """This boot of this host and its namespace of process ids; empty where the system does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
