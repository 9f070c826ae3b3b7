"""The same task in plain Lightning: python -m peers.lightning."""

import math
from functools import partial

import pytorch_lightning as pl
import torch
from fine_tuning import digits
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy


class Digits(pl.LightningDataModule):
    def __init__(self, stop=1400, modulo=10, batch_size=32):
        super().__init__()
        self.batch_size = batch_size
        self.train, self.val = digits(0, stop, modulo), digits(1400, None, modulo)

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, 4 * self.batch_size)


def factor(t, begin, warmup, total):
    """Cosine after a warm-up; 0 before `begin`."""
    if t < begin:
        return 0.0
    return (t + 1) / (warmup + 1) if t < warmup else 0.5 + 0.5 * math.cos(math.pi * (t - warmup) / (total - warmup))


class Classifier(pl.LightningModule):
    def __init__(self, classes=10, weights=None, every=0, lr=0.003, warmup=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes))
        self.accuracy = MulticlassAccuracy(classes, average="micro")
        if weights is not None:
            state = torch.load(weights)["state_dict"]
            kept = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
            kept = {name: value for name, value in kept.items() if not name.startswith("4.")}
            print("missing", self.net.load_state_dict(kept, strict=False).missing_keys)

    def training_step(self, batch, batch_idx):
        images, targets = batch
        loss = functional.cross_entropy(self.net(images), targets, label_smoothing=0.1)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, targets = batch
        outputs = self.net(images)
        self.accuracy(outputs, targets)
        self.log("val/loss", functional.cross_entropy(outputs, targets, label_smoothing=0.1), sync_dist=True)
        self.log("val/accuracy", self.accuracy)

    def configure_optimizers(self):
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, int(self.hparams.warmup * total))
        epoch = total // self.trainer.max_epochs
        groups, factors = [], []
        for later, layer in enumerate(self.net[i] for i in (4, 2, 0)):
            groups += [
                {"params": [layer.weight], "weight_decay": 0.01},
                {"params": [layer.bias], "weight_decay": 0.0},
            ]
            begin = warmup + later * self.hparams.every * epoch if later and self.hparams.every else 0
            factors += [partial(factor, begin=begin, warmup=warmup, total=total)] * 2
        optimizer = torch.optim.AdamW(groups, lr=self.hparams.lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factors), "interval": "step"}}


def main(folder="outputs/lightning", resume=None, **options):
    def trainer(name, epochs, monitor, mode):
        best = ModelCheckpoint(f"{folder}/{name}", monitor=monitor, mode=mode, save_last=True)
        return pl.Trainer(
            max_epochs=epochs,
            check_val_every_n_epoch=5,
            logger=TensorBoardLogger(folder, name),
            callbacks=[LearningRateMonitor("step"), best],
            log_every_n_steps=1,
            **options,
        )

    pl.seed_everything(0, workers=True)
    first = trainer("pretrained", 5, "val/loss", "min")
    first.fit(Classifier(), Digits(), ckpt_path="last" if resume else None)
    then = trainer("tuned", 20, "val/accuracy", "max")
    tuned = Classifier(2, f"{folder}/pretrained/last.ckpt", every=1, lr=0.01)
    then.fit(tuned, Digits(40, 2, 10), ckpt_path="last" if resume else None)


if __name__ == "__main__":
    main()
