"""Worlds of real processes for tests: forked from one server that has imported everything, so that they start fast."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
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
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["trainer.assemble.run", "tests.trainer.equality", "models.mlp", "data.digits"])
    port = free_port()
    processes: list[BaseProcess] = []
    for rank in range(world):
        process = server.Process(target=_enter, args=(rank, world, port, work, args))
        process.start()
        processes.append(process)
    return processes


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
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    work(rank, *args)
