"""What the experiments add to a run of train.py: the loss over the whole training set, and a gain that is held."""

from dataclasses import dataclass

import pytorch_lightning as pl
import torch

from data.order import Pick
from trainer.engine.module import Module
from trainer.engine.step import samples
from trainer.measure.adascale import AdaScale
from trainer.measure.observers import Observers

AT_ONCE = 4096
"""Samples that are scored at a time."""


class TrainingSet(pl.Callback):
    """Scores the whole training set as validation would, without dropout and without augmentation.

    At the end of the run the mean loss becomes the metric `test/train_loss` of result.json. With `curve` it is also
    logged as `train_set/loss` after every validation interval, `trainer.validate`.
    """

    def __init__(self, curve: bool = False) -> None:
        self.curve = curve

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.curve:
            assert isinstance(pl_module, Module)
            loss = training_loss(trainer, pl_module)
            for logger in trainer.loggers:
                logger.log_metrics({"train_set/loss": loss}, pl_module.clock.t - 1)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Module)
        pl_module.log("test/train_loss", training_loss(trainer, pl_module), logger=False)


def training_loss(trainer: pl.Trainer, module: Module) -> float:
    """The mean loss over the training set as the net is now."""
    source = trainer.datamodule.splits.train.to(module.device)  # type: ignore[attr-defined]
    loss, training = 0.0, module.net.training
    module.net.eval()
    with torch.no_grad():
        parts = torch.arange(len(source), device=source.home).split(AT_ONCE)
        for batch in source.batches(Pick(0, part) for part in parts):
            loss += samples(batch) / len(source) * module.run_step(batch).loss.item()
    module.net.train(training)
    return loss


@dataclass(frozen=True)
class Held(AdaScale):
    """An AdaScale whose gain is `held`, whatever is measured."""

    held: float = 1.0

    def gain(self, square: float, trace: float) -> float:
        """The gain of the next update."""
        return self.held


class HeldGain(pl.Callback):
    """A control: holds the gain of AdaScale from the first update on. Held at S it is the linear rule, at 1 no rule."""

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Module)
        assert isinstance(pl_module.observers, Observers)
        observer = pl_module.observers.adascale
        assert observer is not None
        adascale = observer.adascale
        observer.adascale = Held(adascale.multiple, adascale.base_batch, adascale.smoothing, self.gain)
        pl_module.control.gain = self.gain
