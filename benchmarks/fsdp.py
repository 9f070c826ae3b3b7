"""Sharded weights on two processes: Cadence's FSDP and a bare loop around torch's FSDP2, in turn."""

import tempfile
from argparse import Namespace
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard

from benchmarks.ddp import BATCH, CALL, WORLD, Turns, check_blocks, planned, times_of
from benchmarks.loops import WEIGHT_DECAY, batches, decay_groups, train_bare
from benchmarks.world import together
from data.order import Layout
from trainer.cli.compose import compose_config
from trainer.run import Parts, assemble, fit

LR, HIDDEN, FEATURES = 1e-3, [1024, 1024], 512
LINES = {"cadence": ("update, 2 processes with FSDP, an MLP of 1.6M", "bare FSDP2", ">= 0.95")}
NOTE = (
    f"Two processes of one thread and a batch of {BATCH} each, gloo; an MLP {FEATURES}-1024-1024-10 with AdamW. "
    "Cadence and the bare loop end with the same weights to the bit."
)


class Bare:
    """A loop of PyTorch alone: each layer is a unit of FSDP2."""

    def __init__(self, net: nn.Module, assembly: Parts, layout: Layout) -> None:
        self.net = net
        for layer in net.modules():
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        fully_shard(net)
        self.optimizer = torch.optim.AdamW(decay_groups(net, WEIGHT_DECAY), lr=LR, fused=True)
        self.batches = batches(assembly, layout)

    def advance(self, updates: int) -> None:
        """Make the next `updates` updates."""
        train_bare(self.net, self.optimizer, LR, islice(self.batches, updates))


def measured(options: Namespace) -> dict[str, Any]:
    """The time of an update in each block of both loops.

    Raises:
        ConfigError: the blocks do not fit the updates.
        RuntimeError: a process fails, or ends with other weights.
    """
    check_blocks(options)
    return {**times_of(together(WORLD, _rank, options)), "note": NOTE}


def _rank(rank: int, options: Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        assembly = assembled("fsdp", WORLD, planned(options), Path(folder))
        net = deepcopy(assembly.module.net)
        turns = Turns(rank, options.block, lambda: ({"bare": Bare(net, assembly, Layout(BATCH, 1, WORLD, rank))}, {}))
        assembly.trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        fit(assembly)
    pairs = zip(net.parameters(), assembly.module.net.parameters(), strict=True)
    whole = [[getattr(one, "full_tensor", lambda one=one: one)() for one in pair] for pair in pairs]
    if not all(torch.equal(*pair) for pair in whole):
        raise RuntimeError("Cadence ends with other weights than the bare FSDP2 loop: it did not do the same work.")
    return turns.report(assembly.module.horizon.total)


def assembled(strategy: str, world: int, updates: int, folder: Path, hidden: list[int] = HIDDEN) -> Parts:
    """A run of an MLP on so many processes."""
    words = [
        *("name=benchmark", "data=synthetic", f"data.features={FEATURES}", "data.samples=4096", "data.val_samples=0"),
        *("data.test_samples=0", f"data.batch_size={BATCH}", f"model.hidden={hidden}".replace(" ", "")),
        *(
            "optimizer=adamw",
            f"optimizer.lr={LR}",
            f"optimizer.weight_decay={WEIGHT_DECAY}",
            "schedule=constant",
            "warmup=none",
        ),
        *("callbacks=none", f"trainer={strategy}", "trainer.accelerator=cpu", f"trainer.devices={world}"),
        *("trainer.threads=1", f"trainer.duration={updates}", f"trainer.validate={updates}"),
        *(f"trainer.steps_per_execution={CALL}", "task.loss.label_smoothing=0.0"),
    ]
    return assemble(compose_config(words), folder)
