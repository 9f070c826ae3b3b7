"""Trains the same global batch on so many processes and so many micro-batches, and leaves weights and log in a file.

Started by the tests beside it, in this process or in the processes of a world.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from tests.trainer.worlds import ROOT
from trainer.assemble.run import Assembly, assemble, fit
from trainer.assemble.stamp import register

GLOBAL, UPDATES = 16, 50
OPTIMIZERS = {
    "momentum": ["optimizer=momentum", "optimizer.lr=0.1"],
    "adamw": ["optimizer=adamw", "optimizer.lr=0.01"],
    "muon": ["optimizer=muon", "optimizer.lr=0.02"],
}


class Normed(nn.Sequential):
    """A perceptron with BatchNorm."""

    def __init__(self, in_features: int, classes: int) -> None:
        super().__init__(
            nn.Flatten(), nn.Linear(in_features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes)
        )


NORMED = ["model._target_=tests.trainer.equality.Normed", "~model.hidden", "~model.dropout", "allow=[tests]"]


def assembled(folder: Path, world: int, accumulate: int, *words: str) -> Assembly:
    """A run of 50 updates of 16 digits in float64, cut for this world."""
    register()
    common = [
        *(f"data.batch_size={GLOBAL // (world * accumulate)}", "model.hidden=[16,16]", "trainer.precision=64-true"),
        *(f"trainer.devices={world}", f"trainer.accumulate={accumulate}", f"trainer.duration={UPDATES}"),
        *("trainer.validate=25", "trainer.accelerator=cpu", "trainer.threads=1", "callbacks=none", "name=x"),
    ]
    if NORMED[0] in words:
        common.remove("model.hidden=[16,16]")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return assemble(compose("train", [*common, *words]), folder)


def weights(net: nn.Module) -> Tensor:
    """All weights in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def train(folder: Path, world: int, accumulate: int, *words: str, plant: Callable[[Assembly], Any] = lambda a: None):
    """The weights after 50 updates and every logged number; `plant` puts a bug into the run."""
    assembly = assembled(folder, world, accumulate, *words)
    plant(assembly)
    rates: list[list[float]] = []
    configure = assembly.module.configure_optimizers

    def watched() -> torch.optim.Optimizer:
        optimizer = configure()
        optimizer.register_step_post_hook(lambda opt, *_: rates.append([group["lr"] for group in opt.param_groups]))
        return optimizer

    assembly.module.configure_optimizers = watched  # type: ignore[method-assign]
    fit(assembly, None)
    for logger in assembly.trainer.loggers:
        logger.close()  # type: ignore[attr-defined]
    return {"weights": weights(assembly.module.net), "rates": rates, "scores": assembly.checkpointing.best["scores"]}


def splits(world: int) -> list[int]:
    """How many micro-batches are accumulated on a world of this size."""
    return {1: [1, 2, 4], 2: [1, 2], 4: [1]}[world]


def train_all(rank: int, world: int, folder: Path) -> None:
    """Every optimizer and accumulation on this world, one after the other, in one process group."""
    os.environ["CADENCE_STAMP"] = "equality"
    for name, words in OPTIMIZERS.items():
        for accumulate in splits(world):
            where = folder / f"{name}-{world}x{accumulate}"
            torch.save(train(where, world, accumulate, *words), folder / f"{where.name}.{rank}.pt")
