"""Writes down what each validation says, for who watches the run from outside."""

from pathlib import Path

import pytorch_lightning as pl

from trainer.engine.module import Module
from trainer.log.validations import append


class Validations(pl.Callback):
    """A line in `validations.jsonl` of the run's folder after each validation of a fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, Module)
        scores = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        append(self.folder, pl_module.clock.t, scores)
