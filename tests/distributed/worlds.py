"""Worlds of real processes for tests: forked from one server that has imported everything, so that they start fast."""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LAUNCHERS = "RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT NODE_RANK GROUP_RANK LOCAL_WORLD_SIZE".split()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(world: int, work: Callable[..., Any], *args: Any) -> list[BaseProcess]:
    """Start `work(rank, *args)` in each process of a world; the module that defines it is imported once."""
    port, forks = free_port(), server()
    processes: list[BaseProcess] = []
    for rank in range(world):
        process = forks.Process(target=_enter, args=(rank, world, port, work, args))
        process.start()
        processes.append(process)
    return processes


def server() -> ForkServerContext:
    """What forks the processes; it imports with the first of them."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["trainer.run", "tests.engine.equality", "models.mlp", "data.digits"])
    return found


class Script:
    """`python SCRIPT ARGV` in a process of its own, in `folder`: forked, which takes a tenth of a fresh interpreter."""

    def __init__(self, path: Path, argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._output = TemporaryDirectory()
        self._said = [Path(self._output.name, kind) for kind in ("out", "err")]
        self._process = server().Process(target=_script, args=(path, list(argv), folder, dict(environment), self._said))
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process, which leads a session."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, once it has one."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, if it has one already."""
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        """A signal to this process alone."""
        os.kill(self.pid, signum)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for its end, and give what it has said; one that takes longer is killed with all it has started."""
        self._process.join(timeout)
        late = self._process.exitcode is None
        if late:
            self.kill()
        out, err = (path.read_text() if path.exists() else "" for path in self._said)
        assert not late, f"no end in {timeout:g} s: {out}{err}"
        return out, err

    def kill(self) -> None:
        """End it, and the processes that it has started."""
        if self._process.exitcode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
            self._process.join()


def _script(path: Path, argv: list[str], folder: Path, environment: dict[str, str], said: list[Path]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)
    for place, descriptor in zip(said, (1, 2)):
        os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(path), *argv]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")


def run(world: int, work: Callable[..., Any], *args: Any, seconds: float = 240) -> list[int | None]:
    """The exit codes of `work(rank, *args)` in a world of processes; what is left after so long is killed."""
    processes = start(world, work, *args)
    try:
        for process in processes:
            process.join(seconds)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    return [process.exitcode for process in processes]


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None], seconds: float = 600) -> Path:
    """A folder that `make` fills once, also where the tests that read it are spread over workers."""
    base = factory.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    done, failed = place / ".done", place / ".failed"
    try:
        place.mkdir()
    except FileExistsError:
        end = time.monotonic() + seconds
        while not done.exists():
            assert not failed.exists(), "another worker could not fill the folder"
            assert time.monotonic() < end, "another worker has not filled the folder"
            time.sleep(0.2)
        return place
    try:
        make(place)
        done.touch()
    except BaseException:
        failed.touch()
        raise
    return place


def _enter(rank: int, world: int, port: int, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked from this server
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    work(rank, *args)
