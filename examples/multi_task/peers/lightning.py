"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from multi_task import Heads, Turned
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.regression import MeanAbsoluteError


class Images(pl.LightningDataModule):
    def __init__(self, batch_size=32):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(Turned(train=True), self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(Turned(train=False), 4 * self.batch_size)


class Questions(pl.LightningModule):
    def __init__(self, digit=1.0, turn=0.5, ink=10.0, width=128, lr=0.006, warmup=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = Heads(width)
        self.losses = nn.ModuleDict(
            {"digit": nn.CrossEntropyLoss(), "turn": nn.CrossEntropyLoss(), "ink": nn.MSELoss()}
        )
        self.metrics = nn.ModuleDict(
            {
                "digit": MulticlassAccuracy(10, average="micro"),
                "turn": MulticlassAccuracy(4, average="micro"),
                "ink": MeanAbsoluteError(),
            }
        )

    def score(self, batch, split):
        images, targets = batch
        outputs = self.net(images)
        losses = {name: loss(outputs[name], targets[name]) for name, loss in self.losses.items()}
        total = sum(self.hparams[name] * loss for name, loss in losses.items())
        self.log_dict(
            {f"{split}/{name}": loss for name, loss in losses.items()}, batch_size=len(images), sync_dist=True
        )
        self.log(f"{split}/loss", total, batch_size=len(images), sync_dist=True)
        return outputs, total

    def training_step(self, batch, batch_idx):
        return self.score(batch, "train")[1]

    def validation_step(self, batch, batch_idx):
        outputs, _ = self.score(batch, "val")
        for name, metric in self.metrics.items():
            metric(outputs[name], batch[1][name])
            self.log(f"val/heads/{name}", metric)

    def configure_optimizers(self):
        matrices = [parameter for parameter in self.parameters() if parameter.ndim > 1]
        biases = [parameter for parameter in self.parameters() if parameter.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.01}, {"params": biases, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams.lr)
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, int(self.hparams.warmup * total))
        parts = [
            LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup),
            CosineAnnealingLR(optimizer, total - warmup),
        ]
        schedule = SequentialLR(optimizer, parts, [warmup])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(folder="outputs/lightning", resume=None, **options):
    pl.seed_everything(0, workers=True)
    trainer = pl.Trainer(
        max_epochs=8,
        check_val_every_n_epoch=4,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val/loss", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(Questions(), Images(), ckpt_path=resume)


if __name__ == "__main__":
    main()
