"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from reinforcement import policy, reinforce, starts
from torch.optim.lr_scheduler import LinearLR
from torch.utils.data import DataLoader


class Starts(pl.LightningDataModule):
    def __init__(self, batch_size=32):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(starts(800, seed=0), self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(starts(128, seed=1), 4 * self.batch_size)


class Player(pl.LightningModule):
    def __init__(self, steps=100, width=32, lr=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = policy(width)

    def training_step(self, batch, batch_idx):
        found = reinforce(self.net, batch, t=self.global_step, steps=self.hparams.steps)
        self.log_dict({"train/loss": found.loss, "train/steps": found.logs["steps"]})
        return found.loss

    def validation_step(self, batch, batch_idx):
        found = reinforce(self.net, batch, t=self.global_step, steps=self.hparams.steps)
        self.log_dict({"val/loss": found.loss, "val/steps": found.logs["steps"]}, sync_dist=True)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
        schedule = LinearLR(optimizer, 1.0, 0.0, total_iters=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(folder="outputs/lightning", resume=None, **options):
    pl.seed_everything(0, workers=True)
    trainer = pl.Trainer(
        max_epochs=1,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val/steps", mode="max", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(Player(), Starts(), ckpt_path=resume)


if __name__ == "__main__":
    main()
