"""The benchmark's work in stock Lightning, as its documentation shows it."""

import logging
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LearningRateMonitor
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.loops import Outcome, Stopwatch, Work


class Stock(pl.LightningModule):
    """The module as Lightning's own documentation writes it."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work, self.net = work, deepcopy(work.start)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = cross_entropy(self.net(inputs), targets)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.work.optimizer(self.net)
        return [optimizer], [{"scheduler": LambdaLR(optimizer, self.work.factor), "interval": "step"}]


def lightning(work: Work, folder: Path, every: int = 1) -> Outcome:
    """Stock Lightning: automatic optimization, self.log, LearningRateMonitor and its TensorBoard logger."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    watch, module = Stopwatch(), Stock(work)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=work.updates,
        logger=TensorBoardLogger(str(folder)),
        log_every_n_steps=every,
        callbacks=[LearningRateMonitor("step"), watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, work)
    return Outcome(watch.spent, module.net)


def lightning_sparse(work: Work, folder: Path) -> Outcome:
    """Stock Lightning that logs every 50th update."""
    return lightning(work, folder, 50)
