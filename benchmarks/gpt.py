"""The same updates of a character GPT in Cadence and in a bare loop, block by block in turn."""

import tempfile
from argparse import Namespace
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.loops import Spent, batches
from data.order import Layout
from trainer.cli.compose import compose_config
from trainer.engine.module import Module
from trainer.lr import ConfigError
from trainer.run import Parts, assemble, fit

LINES = {"cadence": ("update, a GPT of 0.8M, 12 × 64 tokens", "bare loop", "")}
CALL = 5
"""Updates per call of Lightning's loop, as in the experiment."""


class Bare:
    """The loop of nanoGPT's train.py: AdamW on two groups, clipping, the rate written before each update."""

    def __init__(self, assembly: Parts) -> None:
        self.net, self.policy = deepcopy(assembly.module.net), assembly.module.spec.policy
        matrices = [parameter for parameter in self.net.parameters() if parameter.ndim >= 2]
        vectors = [parameter for parameter in self.net.parameters() if parameter.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.parameters = [*matrices, *vectors]  # the order of the groups, which decides the rounding of the norm
        self.optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)
        self.batches, self.t = batches(assembly, Layout(assembly.data.batch_size)), 0  # type: ignore[attr-defined]

    def advance(self, updates: int) -> None:
        """Make the next `updates` updates."""
        for _ in range(updates):
            lr = self.policy.lr(self.t)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            inputs, targets = next(self.batches)
            cross_entropy(self.net(inputs).flatten(0, 1), targets.flatten()).backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.t += 1


class Turns(pl.Callback):
    """After each block of updates of the fit, runs a block of the bare loop; times both, without validation."""

    def __init__(self, bare: Bare, block: int) -> None:
        self.bare, self.block = bare, block
        self.blocks: list[dict[str, Spent]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.begun = Spent.now()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        assert isinstance(pl_module, Module)
        if pl_module.clock.t % self.block:
            return
        ours = Spent.now()
        self.bare.advance(self.block)
        theirs = Spent.now()
        self.blocks.append({"bare": (theirs - ours) / self.block, "cadence": (ours - self.begun) / self.block})
        self.begun = Spent.now()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.paused = Spent.now() - self.begun

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.begun = Spent.now() - self.paused


def measured(options: Namespace) -> dict[str, Any]:
    """The time of an update in each block of both loops, the validation loss, and the seconds of both in all.

    Raises:
        RuntimeError: the two nets end with different weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        assembly = assembled(options, Path(folder))
        turns = Turns(Bare(assembly), options.block)
        assembly.trainer.callbacks.append(turns)  # type: ignore[attr-defined]
        begun = Spent.now()
        fit(assembly)
        total = Spent.now() - begun
    if not all(map(torch.equal, turns.bare.net.parameters(), assembly.module.net.parameters())):
        raise RuntimeError("Cadence ends with other weights than the bare loop: it did not do the same work.")
    seconds = {name: options.block * sum(block[name].wall for block in turns.blocks) for name in ("bare", "cadence")}
    return {
        "updates": assembly.module.horizon.total,
        "times": turns.blocks,
        "unit": f"blocks of {options.block}",
        "val_loss": assembly.checkpointing.best["value"],
        "seconds": {**seconds, "cadence_with_validation": total.wall - seconds["bare"]},
    }


def assembled(options: Namespace, folder: Path) -> Parts:
    """The run of experiment=shakespeare_char, with one validation at its end unless it is `--full`."""
    updates = options.updates or (2000 if options.full else 300)
    if updates % options.block or options.block % CALL:
        raise ConfigError(
            f"--block={options.block} does not fit: {updates} updates must be whole blocks, and a block a multiple "
            f"of {CALL} updates."
        )
    overrides = [
        *("name=benchmark", "experiment=shakespeare_char", "callbacks=none", "trainer=cpu", "data.path=set below"),
        *(f"trainer.threads={options.threads}", f"trainer.duration={updates}", f"trainer.steps_per_execution={CALL}"),
        *("warmup.duration=5%", f"trainer.validate={250 if options.full else updates}"),
    ]
    cfg = compose_config(overrides)
    cfg.data.path = str(options.data.resolve())  # not an override: a path may hold what Hydra's grammar does not
    return assemble(cfg, folder)
