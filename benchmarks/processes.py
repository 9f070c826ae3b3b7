"""Speed and memory of 1, 2 and 4 processes, with DDP and with FSDP: how they grow with the number of processes."""

import ctypes
import os
import tempfile
from argparse import Namespace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pytorch_lightning as pl
import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.ddp import BATCH, CALL
from benchmarks.fsdp import FEATURES, assembled
from benchmarks.world import together
from trainer.run import fit

WORLDS = (1, 2, 4)
HIDDEN = [2048] * 6
UPDATES = 10
STRATEGIES = {"DDP": "ddp", "FSDP": "fsdp"}


class Chunks(pl.Callback):
    """The time of each chunk of updates, and the memory in use after it."""

    def __init__(self) -> None:
        self.seconds, self.begun = list[float](), 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.begun = perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        self.seconds.append((perf_counter() - self.begun) / CALL)
        self.begun = perf_counter()


def measured(options: Namespace) -> dict[str, Any]:
    """Samples per second and private memory of a process, for each strategy and number of processes."""
    updates = options.updates or UPDATES
    rows = []
    for name, strategy in STRATEGIES.items():
        for world in WORLDS:
            if (strategy, world) == ("fsdp", 1):
                continue
            found = [together(world, _rank, strategy, world, updates) for _ in range(min(options.rounds, 3))]
            seconds = [median(one["seconds"][1:]) for one in found]
            rows.append(
                {
                    "strategy": name,
                    "processes": world,
                    "samples_per_s": [world * BATCH / one for one in seconds],
                    "megabytes": max(one["megabytes"] for one in found),
                    "state_megabytes": found[0]["state_megabytes"],
                }
            )
    return {"table": rows, "updates": updates}


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    table, console = Table(box=SIMPLE), Console(highlight=False, soft_wrap=True, width=160)
    titles = (
        "",
        "processes",
        "samples/s",
        "min to max",
        "× one process",
        "MB of a process",
        "MB of it weights and state",
    )
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    one = median(report["table"][0]["samples_per_s"])
    for row in report["table"]:
        speeds = row["samples_per_s"]
        cells = [f"{median(speeds):,.0f}", f"{min(speeds):,.0f} to {max(speeds):,.0f}", f"{median(speeds) / one:.2f}"]
        table.add_row(
            row["strategy"], str(row["processes"]), *cells, f"{row['megabytes']:.0f}", f"{row['state_megabytes']:.0f}"
        )
    console.print(table)
    where = report["machine"]
    console.print(
        f"An MLP {FEATURES}-{HIDDEN[0]}×{len(HIDDEN)}-10, AdamW, a batch of {BATCH} and one thread in each process, "
        f"{where['cores']} cores, gloo; load {where['load']:.1f}. Memory in use "
        "beyond that after the imports, between updates."
    )


def private() -> float:
    """MB of private memory in use by this process; 0 where the system does not tell it."""
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what is free goes back to the system
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon")), 0.0)


def _rank(rank: int, strategy: str, world: int, updates: int) -> dict[str, Any]:
    before, chunks = private(), Chunks()
    with tempfile.TemporaryDirectory() as folder:
        if world == 1:
            for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
                os.environ.pop(name)
        assembly = assembled(strategy if world > 1 else "cpu", world, updates, Path(folder), HIDDEN)
        held: list[float] = []
        chunks.on_train_end = lambda *_: held.extend((private(), state_of(assembly)))  # type: ignore[method-assign]
        assembly.trainer.callbacks.append(chunks)  # type: ignore[attr-defined]
        fit(assembly)
    return {"seconds": chunks.seconds, "megabytes": held[0] - before, "state_megabytes": held[1]}


def state_of(assembly: Any) -> float:
    """MB of the weights, their gradients and the state of the optimizer that this process holds."""
    (optimizer,) = assembly.trainer.optimizers
    tensors = [*assembly.module.net.parameters()]
    tensors += [parameter.grad for parameter in tensors if parameter.grad is not None]
    tensors += [
        value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)
    ]
    local = [getattr(tensor, "to_local", lambda tensor=tensor: tensor)() for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in local) / 1e6
