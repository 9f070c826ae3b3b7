"""How the driver of a sweep starts its jobs: each in a fresh interpreter, or forked from one that is warm."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from trainer.lr import ConfigError
from trainer.sweep.watchdog import alive, signal_group

BEGIN = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from trainer.sweep.fork_server import main; main()"
SAFE = {"OPENBLAS_NUM_THREADS": "1", "CUDA_MODULE_LOADING": "LAZY"}
"""What keeps an import from starting threads."""


class Started(Protocol):
    """A process that was started: its id, which is its group, and its exit code once it has one.

    The id of one on another machine is 0. `waited`: seconds until it began. Signals reach all that it has started.
    """

    pid: int

    @property
    def waited(self) -> float: ...

    def poll(self) -> int | None: ...

    def send(self, signum: int) -> None: ...

    def alive(self) -> bool: ...


class Leader:
    """A process of this machine that leads its group."""

    pid: int
    waited = 0.0

    def send(self, signum: int) -> None:
        """Send a signal to the group."""
        signal_group(self.pid, signum)

    def alive(self) -> bool:
        """Whether a process of the group runs."""
        return alive(self.pid)


class Fresh(Leader, subprocess.Popen[bytes]):
    """A job in an interpreter of its own."""


class Spawn(Protocol):
    """What starts a command with an environment, its output added to a log, as the leader of a session."""

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Started: ...


def fresh(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Started:
    """Start a fresh interpreter."""
    with log.open("ab") as file:
        return Fresh(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Nursery:
    """The driver's end of a warm parent, which is started with the first job."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules = modules
        self.codes: dict[int, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer, self._dead = b"", False

    def __call__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Started:
        """Fork a job; where the warm parent has died, a fresh interpreter does as well."""
        interpreter, *words = command
        if self._dead or interpreter != sys.executable or (words[0].startswith("-") and words[0] != "-m"):
            return fresh(command, environment, log)
        try:
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            asked = {"words": words, "environment": dict(environment), "log": str(log)}
            process.stdin.write(json.dumps(asked).encode() + b"\n")
            process.stdin.flush()
            os.set_blocking(process.stdout.fileno(), True)
            while "started" not in (said := self._next()):
                self.codes[said["pid"]] = said["code"]
        except OSError:
            self._dead = True
            print("the warm parent has died: the next jobs start in fresh interpreters", file=sys.stderr, flush=True)
            return fresh(command, environment, log)
        return Forked(said["started"], self)

    def listen(self) -> None:
        """Take in which jobs have ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        with suppress(OSError):  # it has died, or is silent
            while said := self._next():
                self.codes[said["pid"]] = said["code"]

    @property
    def gone(self) -> bool:
        """Whether the warm parent has died, so that nobody knows the exit codes of its jobs."""
        return self._process is None or self._process.poll() is not None

    def _start(self) -> "subprocess.Popen[bytes]":
        process = self._process = subprocess.Popen(
            [sys.executable, "-c", BEGIN, str(Path(__file__).parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **SAFE},
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps({"path": sys.path, "modules": list(self.modules)}).encode() + b"\n")
        process.stdin.flush()
        if reason := self._next().get("refused"):
            raise ConfigError(f"hydra.launcher.fork=true: {reason}, and a fork would not be safe: leave warm out")
        return process

    def _next(self) -> dict[str, Any]:
        """The next line that the warm parent says; OSError where it says nothing more, or nothing now."""
        assert self._process is not None
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            if not (read := os.read(self._process.stdout.fileno(), 65536)):
                raise BrokenPipeError
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))


class Forked(Leader):
    """A job that the warm parent has forked."""

    def __init__(self, pid: int, nursery: Nursery) -> None:
        self.pid, self._nursery = pid, nursery

    def poll(self) -> int | None:
        """The exit code, once it has one; that of a job whose warm parent was killed is taken for SIGKILL's."""
        self._nursery.listen()
        if self.pid in self._nursery.codes:
            return self._nursery.codes[self.pid]
        return -signal.SIGKILL if self._nursery.gone and not alive(self.pid) else None


def modules(config: Any) -> list[str]:
    """The modules of this project that the `_target_`s of a config name, which every job is likely to need."""
    if isinstance(config, dict):
        own = str(config.get("_target_", "")).rpartition(".")[0]
        found = {own} if own.split(".")[0] in ("trainer", "models", "data") else set()
        return sorted(found.union(*(modules(inner) for inner in config.values())))
    return sorted(set().union(*(modules(inner) for inner in config))) if isinstance(config, list) else []
