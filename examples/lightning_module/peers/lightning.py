"""The same task with Lightning's own trainer: python -m peers.lightning."""

import pytorch_lightning as pl
from lightning_module import DigitsData, LitDigits
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR


class WarmedUp(LitDigits):
    def configure_optimizers(self):
        (optimizer,), _ = super().configure_optimizers()
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, total // 20)
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
        check_val_every_n_epoch=2,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val_acc", mode="max", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(WarmedUp(), DigitsData(), ckpt_path=resume)


if __name__ == "__main__":
    main()
