"""The same task with Lightning's own trainer: python -m peers.lightning."""

import pytorch_lightning as pl
from gan import GAN, circle
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.optim.lr_scheduler import LinearLR
from torch.utils.data import DataLoader


class Points(pl.LightningDataModule):
    def __init__(self, batch_size=128):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(circle(2048, seed=0), self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(circle(512, seed=1), 512)


class Decayed(GAN):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        for schedule in self.lr_schedulers():
            schedule.step()

    def configure_optimizers(self):
        optimizers, total = super().configure_optimizers(), self.trainer.max_epochs * self.trainer.num_training_batches
        return optimizers, [LinearLR(optimizer, 1.0, 0.0, total_iters=total) for optimizer in optimizers]


def main(folder="outputs/lightning", resume=None, **options):
    pl.seed_everything(0, workers=True)
    trainer = pl.Trainer(
        max_epochs=16,
        check_val_every_n_epoch=4,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val_distance", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(Decayed(), Points(), ckpt_path=resume)


if __name__ == "__main__":
    main()
