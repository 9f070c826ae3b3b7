"""Data parallelism on two processes: Cadence, a bare DDP loop, and one process at their global batch, in turn."""

import random
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from omegaconf import flag_override
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.loops import Spent, batches, train_bare
from benchmarks.world import together
from data.module import DataModule, Splits
from data.order import Layout
from data.source import Memory
from trainer.cli.compose import compose_config
from trainer.engine.module import Module
from trainer.lr import ConfigError
from trainer.run import Parts, assemble, fit

WORLD, BATCH, WIDTH, LR = 2, 32, 16, 0.01
CALL = 5
"""Updates per call of Lightning's loop."""
LINES = {"cadence": ("update, 2 processes with DDP, ResNet-9", "bare DDP", ">= 0.98")}
NOTE = (
    f"Two processes of one thread and a batch of {BATCH} each; Cadence and the bare DDP loop end with the same weights "
    f"to the bit. Alone is one bare process at their global batch, {WORLD * BATCH}."
)


class Images(DataModule):
    """Random images (3, 32, 32) of ten classes, as large as those of CIFAR-10."""

    @property
    def shape(self) -> dict[str, int]:
        return {"in_channels": 3, "classes": 10}

    def read(self) -> Splits:
        source = torch.Generator().manual_seed(0)
        images = torch.randn(2048, 3, 32, 32, generator=source)
        return Splits(Memory((images, torch.randint(10, (2048,), generator=source))))


class Bare:
    """A loop of PyTorch alone with so many threads; over all processes if `layout.world` is above 1."""

    def __init__(self, assembly: Parts, layout: Layout, threads: int) -> None:
        self.net: nn.Module = deepcopy(assembly.module.net)
        self.model, self.threads = self.net, threads
        if layout.world > 1:
            self.model = DistributedDataParallel(self.net, broadcast_buffers=False, gradient_as_bucket_view=True)
        groups = [dict(group) for group in assembly.module.configure_optimizers().param_groups]
        names = {id(parameter): name for name, parameter in assembly.module.net.named_parameters()}
        own = dict(self.net.named_parameters())
        for group in groups:
            group["params"] = [own[names[id(parameter)]] for parameter in group["params"]]
        self.optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9, fused=True)
        self.batches = batches(assembly, layout)

    def advance(self, updates: int) -> None:
        """Make the next `updates` updates."""
        torch.set_num_threads(self.threads)
        train_bare(self.model, self.optimizer, LR, islice(self.batches, updates))
        torch.set_num_threads(1)


class Turns(pl.Callback):
    """After each block of updates of the fit, runs a block of every other loop, all processes together; times each.

    `loops` gives the loops of all processes, and those of rank 0 alone. Their order is drawn for each block, the same
    in all processes.
    """

    def __init__(self, rank: int, block: int, loops: Callable[[], tuple[dict[str, Any], dict[str, Any]]]) -> None:
        self.rank, self.loops = rank, loops
        self.block, self.blocks = block, list[dict[str, Spent]]()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.everywhere, self.alone = self.loops()
        dist.barrier()
        self.begun = Spent.now()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        assert isinstance(pl_module, Module)
        if pl_module.clock.t % self.block:
            return
        dist.barrier()
        times = {"cadence": (Spent.now() - self.begun) / self.block}
        others = [*self.everywhere.items(), *self.alone.items()]
        for name, loop in random.Random(len(self.blocks)).sample(others, len(others)):
            begun = Spent.now()
            if name in self.everywhere or self.rank == 0:
                loop.advance(self.block)
            dist.barrier()
            times[name] = (Spent.now() - begun) / self.block
        self.blocks.append(times)
        self.begun = Spent.now()

    def report(self, updates: int) -> dict[str, Any]:
        """What rank 0 hands over."""
        return {"updates": updates, "unit": f"blocks of {self.block}", "times": self.blocks}


def measured(options: Namespace) -> dict[str, Any]:
    """The time of an update in each block of every loop.

    Raises:
        ConfigError: the blocks do not fit the updates.
        RuntimeError: a process fails, or ends with other weights.
    """
    check_blocks(options)
    return {**times_of(together(WORLD, _rank, options)), "note": NOTE}


def times_of(report: dict[str, Any]) -> dict[str, Any]:
    """The report of the processes without its first block, which warms up."""
    times = [{name: Spent(*spent) for name, spent in block.items()} for block in report["times"]]
    return {**report, "times": times[1:]}


def check_blocks(options: Namespace) -> None:
    """ConfigError where the blocks do not fit the updates."""
    updates = planned(options)
    if options.block % CALL or updates % options.block or updates < 2 * options.block:
        raise ConfigError(
            f"--block={options.block} does not fit: take a multiple of {CALL} that goes into {updates} updates twice."
        )


def _rank(rank: int, options: Namespace) -> dict[str, Any]:
    warnings.filterwarnings("ignore", message=".*broadcast_buffers")
    with tempfile.TemporaryDirectory() as folder:
        assembly = assembled(options, Path(folder))

        def loops() -> tuple[dict[str, Any], dict[str, Any]]:
            cores = {"alone, 1 core": 1, "alone, 2 cores": 2}
            alone = {name: Bare(assembly, Layout(WORLD * BATCH), threads) for name, threads in cores.items()}
            return {"bare": Bare(assembly, Layout(BATCH, 1, WORLD, rank), 1)}, alone

        turns = Turns(rank, options.block, loops)
        assembly.trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        fit(assembly)
    if not all(map(torch.equal, turns.everywhere["bare"].net.parameters(), assembly.module.net.parameters())):
        raise RuntimeError("Cadence ends with other weights than the bare DDP loop: it did not do the same work.")
    return turns.report(assembly.module.horizon.total)


def planned(options: Namespace) -> int:
    """Updates of the run."""
    return options.updates or 20 * options.block


def assembled(options: Namespace, folder: Path) -> Parts:
    """A ResNet-9 of a quarter of its width, on two processes."""
    updates = planned(options)
    words = [
        *("name=benchmark", "allow=[benchmarks]", "model=resnet9", f"model.width={WIDTH}", "optimizer=momentum"),
        *(f"optimizer.lr={LR}", "schedule=constant", "warmup=none", "callbacks=none", "trainer=ddp"),
        *("trainer.accelerator=cpu", f"trainer.devices={WORLD}", "trainer.threads=1", f"trainer.duration={updates}"),
        *(f"trainer.validate={updates}", f"trainer.steps_per_execution={CALL}", "task.loss.label_smoothing=0.0"),
    ]
    cfg = compose_config(words)
    with flag_override(cfg, "struct", False):
        cfg.data = {"_target_": "benchmarks.ddp.Images", "samples": 2048, "batch_size": BATCH}
    return assemble(cfg, folder)
