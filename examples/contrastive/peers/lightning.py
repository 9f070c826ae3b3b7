"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from contrastive import Encoder, view
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, TensorDataset, random_split


class Digits(pl.LightningDataModule):
    def __init__(self, batch_size=64):
        super().__init__()
        self.batch_size = batch_size
        found = load_digits()
        images = torch.tensor(found.images / 16, dtype=torch.float32)[:, None]
        digits = TensorDataset(images, torch.tensor(found.target))
        generator = torch.Generator().manual_seed(0)
        self.train, self.val, self.test = random_split(digits, [0.7, 0.1, 0.2], generator)

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test, self.batch_size)


class Contrastive(pl.LightningModule):
    def __init__(self, temperature=0.2, lr=0.003, warmup=0.05, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = Encoder(in_features=64)

    def score(self, batch):
        images, labels = batch
        embedded, count = self.net(torch.cat([view(images), view(images)])), len(images)
        similar = embedded @ embedded.T / self.hparams.temperature
        similar = similar.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=self.device), -torch.inf)
        loss = functional.cross_entropy(similar, torch.arange(2 * count, device=self.device).roll(count))
        twice = labels.repeat(2)
        return loss, (twice[similar.argmax(1)] == twice).float().mean()

    def training_step(self, batch, batch_idx):
        loss, _ = self.score(batch)
        self.log("train/loss", loss)
        return loss

    def evaluate(self, batch, stage):
        loss, nearest = self.score(batch)
        self.log_dict({f"{stage}/loss": loss, f"{stage}/nearest": nearest}, batch_size=len(batch[0]), sync_dist=True)

    def validation_step(self, batch, batch_idx):
        self.evaluate(batch, "val")

    def test_step(self, batch, batch_idx):
        self.evaluate(batch, "test")

    def configure_optimizers(self):
        matrices, others = [], []
        for parameter in self.parameters():
            (matrices if parameter.ndim > 1 else others).append(parameter)
        groups = [
            {"params": matrices, "weight_decay": self.hparams.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams.lr)
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, int(self.hparams.warmup * total))
        rising = LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup)
        schedule = SequentialLR(optimizer, [rising, CosineAnnealingLR(optimizer, total - warmup)], [warmup])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(folder="outputs/lightning", resume=None, **options):
    pl.seed_everything(0, workers=True)
    trainer = pl.Trainer(
        max_epochs=15,
        check_val_every_n_epoch=5,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val/loss", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    data = Digits()
    trainer.fit(Contrastive(), data, ckpt_path=resume)
    trainer.test(datamodule=data, ckpt_path="best")


if __name__ == "__main__":
    main()
