"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, TensorDataset, random_split
from vae import VAE


class Digits(pl.LightningDataModule):
    def __init__(self, batch_size=32):
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
        return DataLoader(self.val, 4 * self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test, 4 * self.batch_size)


class Autoencoder(pl.LightningModule):
    def __init__(self, beta=1.0, lr=0.003, warmup=0.05, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = VAE(in_features=64)

    def losses(self, batch):
        images, _ = batch
        pixels, mean, log_variance = self.net(images)
        errors = functional.binary_cross_entropy_with_logits(pixels, images.flatten(1), reduction="none")
        error = errors.sum(1).mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return {"loss": error + self.hparams.beta * divergence, "reconstruction": error, "kl": divergence}

    def log_losses(self, stage, losses, batch):
        named = {f"{stage}/{name}": value for name, value in losses.items()}
        self.log_dict(named, batch_size=len(batch[0]), sync_dist=stage != "train")

    def training_step(self, batch, batch_idx):
        losses = self.losses(batch)
        self.log_losses("train", losses, batch)
        return losses["loss"]

    def validation_step(self, batch, batch_idx):
        self.log_losses("val", self.losses(batch), batch)

    def test_step(self, batch, batch_idx):
        self.log_losses("test", self.losses(batch), batch)

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
    trainer.fit(Autoencoder(), data, ckpt_path=resume)
    trainer.test(datamodule=data, ckpt_path="best")


if __name__ == "__main__":
    main()
