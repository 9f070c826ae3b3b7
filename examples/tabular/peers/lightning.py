"""The same task in plain Lightning: python -m peers.lightning."""

import pandas
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tabular import Rows
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

NUMBERS, CATEGORIES, TARGET = ["area", "year", "rent"], ["district", "heating", "balcony"], "let_fast"


class Flats(pl.LightningDataModule):
    def __init__(self, path="flats.csv", batch_size=64):
        super().__init__()
        self.batch_size = batch_size
        table = pandas.read_csv(path).sample(frac=1, random_state=0)
        val, test, train = table[:200], table[200:400], table[400:]
        self.values = [sorted(train[name].unique()) for name in CATEGORIES]
        self.mean, self.std = train[NUMBERS].mean(), train[NUMBERS].std(ddof=0)
        self.train, self.val, self.test = (self.tensors(part) for part in (train, val, test))

    def tensors(self, table):
        numbers = ((table[NUMBERS] - self.mean) / self.std).to_numpy("float32")
        columns = zip(CATEGORIES, self.values)
        codes = [torch.tensor(pandas.Categorical(table[name], values).codes + 1) for name, values in columns]
        targets = (table[TARGET] == "yes").to_numpy("int64")
        return TensorDataset(torch.tensor(numbers), torch.stack(codes, 1).long(), torch.tensor(targets))

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, 4 * self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test, 4 * self.batch_size)


class Classifier(pl.LightningModule):
    def __init__(self, categories=(9, 5, 3), lr=0.01, warmup=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = Rows(len(NUMBERS), list(categories), classes=2)
        self.val_accuracy = MulticlassAccuracy(2, average="micro")
        self.test_accuracy = MulticlassAccuracy(2, average="micro")

    def score(self, batch):
        numbers, categories, targets = batch
        outputs = self.net({"numbers": numbers, "categories": categories})
        return outputs, functional.cross_entropy(outputs, targets, label_smoothing=0.1)

    def training_step(self, batch, batch_idx):
        _, loss = self.score(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        outputs, loss = self.score(batch)
        self.val_accuracy(outputs, batch[-1])
        self.log("val/loss", loss, batch_size=len(outputs), sync_dist=True)
        self.log("val/accuracy", self.val_accuracy)

    def test_step(self, batch, batch_idx):
        outputs, loss = self.score(batch)
        self.test_accuracy(outputs, batch[-1])
        self.log("test/loss", loss, batch_size=len(outputs), sync_dist=True)
        self.log("test/accuracy", self.test_accuracy)

    def configure_optimizers(self):
        matrices = [parameter for parameter in self.net.layers.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in self.parameters() if not any(parameter is one for one in matrices)]
        groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
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
    data = Flats()
    trainer = pl.Trainer(
        max_epochs=12,
        check_val_every_n_epoch=4,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val/loss", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(Classifier(), data, ckpt_path=resume)
    trainer.test(datamodule=data, ckpt_path="best")


if __name__ == "__main__":
    main()
