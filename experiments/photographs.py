"""What the experiments on CIFAR-10 share: where the data lie, the device, and the error on what was held out."""

import os
from pathlib import Path
from typing import Any

import torch

from experiments.training import scored
from trainer.run import Assembly

FOLDER = "CADENCE_DATA"
"""The environment variable that may name a folder with cifar10/train.parquet and cifar10/test.parquet."""


def setting() -> tuple[str, ...]:
    """Overrides for each arm: a GPU in bfloat16 where there is one, and the data from the folder, or from the hub."""
    chosen = ["trainer.accelerator=auto"]
    if torch.cuda.is_available():
        chosen.append("trainer.precision=bf16-mixed")
    if folder := os.environ.get(FOLDER):
        chosen.append(f"data.path={Path(folder) / 'cifar10'}")
    return tuple(chosen)


def held_out(assembly: Assembly) -> dict[str, Any]:
    """The error on the 5,000 images held out, by which rates are chosen; the test set is for the verdict alone."""
    return {"val_error": scored(assembly, "val")[1]}
