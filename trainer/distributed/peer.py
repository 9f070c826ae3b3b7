"""One process of a run as the others know it, and how it can be lost."""

import os
import signal
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DONE, FAILED, LEFT, SILENT, DEAD = "done", "failed", "left", "silent", "dead"


@dataclass(frozen=True)
class Peer:
    """A rank, its host, and its process; `machine` names the space in which the process id means something."""

    rank: int
    host: str
    pid: int
    machine: str

    @classmethod
    def here(cls, rank: int) -> "Peer":
        """This process."""
        return cls(rank, socket.gethostname(), os.getpid(), _machine())

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"

    @property
    def here_too(self) -> bool:
        """Whether it is another process of this machine."""
        return bool(self.machine) and self.machine == _machine() and self.pid != os.getpid()

    def runs_here(self) -> bool:
        """Whether it is a process of this machine that is not stopped."""
        return self.here_too and state(self.pid) not in ("", "T", "t", "Z", "X")

    def kill(self) -> None:
        """End this member, where it runs on this machine: what is stopped hears no other signal."""
        if self.here_too:
            try:
                os.kill(self.pid, signal.SIGKILL)
            except OSError:
                return


@dataclass(frozen=True)
class LostPeer:
    """A rank that is no more part of the run: what became of it, and the exit code of the whole run."""

    member: Peer
    kind: str
    text: str
    code: int = 1

    def told(self) -> dict[str, Any]:
        """This loss as plain data."""
        return asdict(self)

    @classmethod
    def heard(cls, told: dict[str, Any]) -> "LostPeer":
        """The loss that another process told of."""
        return cls(**{**told, "member": Peer(**told["member"])})


class RankLost(RuntimeError):
    """Another process of the run has failed, died or fallen silent."""


def ending(code: int) -> str:
    """How a process ended, by the code that its parent sees."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def stopped(pid: int) -> bool:
    """Whether a process of this machine is stopped, as by SIGSTOP; False where that cannot be known."""
    return state(pid) in ("T", "t")


def state(pid: int) -> str:
    """The state of a process of this machine, as R, S or T; nothing where it cannot be known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def _machine() -> str:
    """This boot of this host and its space of process ids; nothing where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
