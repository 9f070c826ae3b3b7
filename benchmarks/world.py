"""Several processes of a measurement on this machine, of one thread each."""

import json
import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def together(world: int, main: Callable[..., Any], *arguments: Any) -> Any:
    """What `main(rank, *arguments)` returns in rank 0 of `world` new processes.

    RuntimeError if a process fails.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fresh = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "found.json")
        ranks = [(rank, world, port, file, main, arguments) for rank in range(world)]
        processes = [fresh.Process(target=_rank, args=rank) for rank in ranks]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise RuntimeError("a process of the benchmark failed: its message is above.")
        return json.loads(file.read_text())


def _rank(rank: int, world: int, port: int, file: Path, main: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    found = main(rank, *arguments)
    if rank == 0:
        file.write_text(json.dumps(found))


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
