"""The same task in plain Lightning, with crops as torchvision has them: python -m peers.lightning."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from image_folder import ConvNet
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, Subset
from torchmetrics.classification import MulticlassAccuracy

from data.image_folder import Images, Transformed, normalise
from data.transforms import CentreCrop, RandomResizedCrop


class PictureData(pl.LightningDataModule):
    def __init__(self, path="pictures", image_size=24, val_fraction=0.25, batch_size=32, num_workers=2):
        super().__init__()
        self.batch_size, self.num_workers = batch_size, num_workers
        folders = sorted(Path(path).iterdir())
        images = Images([(file, i) for i, folder in enumerate(folders) for file in sorted(folder.iterdir())])
        shuffled = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
        held_out = int(val_fraction * len(images))
        self.train = Subset(Transformed(images, RandomResizedCrop(image_size, (0.35, 1.0))), shuffled[held_out:])
        self.val = Subset(Transformed(images, CentreCrop(image_size)), shuffled[:held_out])

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True, num_workers=self.num_workers)

    def val_dataloader(self):
        return DataLoader(self.val, 4 * self.batch_size, num_workers=self.num_workers)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return normalise(batch)


class Classifier(pl.LightningModule):
    def __init__(self, classes=4, lr=0.01, warmup=0.05, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = ConvNet(3, classes)
        self.accuracy = MulticlassAccuracy(classes, average="micro")

    def training_step(self, batch, batch_idx):
        images, labels = batch
        loss = functional.cross_entropy(self.net(images), labels, label_smoothing=0.1)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        outputs = self.net(images)
        loss = functional.cross_entropy(outputs, labels, label_smoothing=0.1)
        self.accuracy(outputs, labels)
        self.log("val/loss", loss, batch_size=len(labels), sync_dist=True)
        self.log("val/accuracy", self.accuracy)

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
        max_epochs=12,
        check_val_every_n_epoch=6,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val/loss", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(Classifier(), PictureData(), ckpt_path=resume)


if __name__ == "__main__":
    main()
