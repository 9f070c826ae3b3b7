"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from monai.networks.nets import UNet
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from segmentation import Pictures
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

CLASSES, IGNORED = ("nothing", "disc", "square"), 255


class PictureData(pl.LightningDataModule):
    def __init__(self, batch_size=32):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(Pictures(500, 1), self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(Pictures(100, 2), 4 * self.batch_size)


class Segmenter(pl.LightningModule):
    def __init__(self, lr=0.02, warmup=0.05, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = UNet(spatial_dims=2, in_channels=1, out_channels=3, channels=(8, 16, 32), strides=(2, 2))
        self.accuracy = MulticlassAccuracy(len(CLASSES), average="micro", ignore_index=IGNORED)
        self.iou = MulticlassJaccardIndex(len(CLASSES), average="none", ignore_index=IGNORED)

    def training_step(self, batch, batch_idx):
        pictures, classes = batch
        loss = functional.cross_entropy(self.net(pictures), classes, ignore_index=IGNORED)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        pictures, classes = batch
        outputs = self.net(pictures)
        loss = functional.cross_entropy(outputs, classes, ignore_index=IGNORED)
        self.accuracy(outputs, classes)
        self.iou.update(outputs, classes)
        self.log("val/loss", loss, batch_size=int((classes != IGNORED).sum()), sync_dist=True)
        self.log("val/accuracy", self.accuracy)

    def on_validation_epoch_end(self):
        self.log_dict({f"val/iou/{name}": value for name, value in zip(CLASSES, self.iou.compute())})
        self.iou.reset()

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
        max_epochs=5,
        check_val_every_n_epoch=5,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val/loss", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(Segmenter(), PictureData(), ckpt_path=resume)


if __name__ == "__main__":
    main()
