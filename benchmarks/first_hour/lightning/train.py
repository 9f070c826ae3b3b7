# Digits and a table in plain Lightning: python train.py --help
import argparse

import pandas
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.tuner import Tuner
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics.functional import accuracy


class Data(pl.LightningDataModule):
    def __init__(self, batch_size):
        super().__init__()
        self.batch_size = batch_size

    def split(self, inputs, targets, sizes):
        data = TensorDataset(inputs, targets)
        parts = random_split(data, sizes, generator=torch.Generator().manual_seed(0))
        self.train, self.val, self.test = parts

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, 4 * self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test, 4 * self.batch_size)


class Digits(Data):
    features, classes = 64, 10

    def setup(self, stage):
        digits = load_digits()
        inputs = torch.tensor(digits.data / 16, dtype=torch.float32)
        self.split(inputs, torch.tensor(digits.target), [1257, 180, 360])


class Table(Data):
    target, classes = "let_fast", 2

    def __init__(self, batch_size, path="flats.csv"):
        super().__init__(batch_size)
        table = pandas.read_csv(path)
        self.labels = sorted(table[self.target].unique())
        self.columns = pandas.get_dummies(table.drop(columns=self.target)).columns
        self.mean, self.std = 0, 1
        inputs = self.inputs(table)
        self.mean, self.std = inputs.mean(0), inputs.std(0)
        self.all = self.inputs(table), torch.tensor([self.labels.index(one) for one in table[self.target]])
        self.features = len(self.columns)

    def inputs(self, table):
        encoded = pandas.get_dummies(table.drop(columns=self.target, errors="ignore")).reindex(
            columns=self.columns, fill_value=0
        )
        return (torch.tensor(encoded.to_numpy("float32")) - self.mean) / self.std

    def setup(self, stage):
        self.split(*self.all, [1600, 200, 200])


def mlp(features, classes):
    layers = [nn.Linear(features, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes)]
    return nn.Sequential(nn.Flatten(), *layers)


def mine(features, classes, width=64):
    return nn.Sequential(nn.Flatten(), nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes))


class Classifier(pl.LightningModule):
    def __init__(self, net, features, classes, lr, schedule, warmup=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = {"mlp": mlp, "mine": mine}[net](features, classes)

    def score(self, batch, stage):
        inputs, targets = batch
        outputs = self.net(inputs)
        loss = cross_entropy(outputs, targets, label_smoothing=0.1)
        self.log(f"{stage}/loss", loss, batch_size=len(inputs))
        if stage != "train":
            right = accuracy(outputs, targets, "multiclass", num_classes=outputs.shape[1])
            self.log(f"{stage}/accuracy", right, batch_size=len(inputs))
        return loss

    def training_step(self, batch, batch_idx):
        return self.score(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.score(batch, "val")

    def test_step(self, batch, batch_idx):
        self.score(batch, "test")

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0]).argmax(1)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=0.01)
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, int(self.hparams.warmup * total))
        if self.hparams.schedule == "cosine":
            fall = CosineAnnealingLR(optimizer, total - warmup)
        else:
            fall = LinearLR(optimizer, 1.0, 0.0, total_iters=total - warmup)
        schedule = SequentialLR(optimizer, [LinearLR(optimizer, total_iters=warmup), fall], [warmup])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def predict(trainer, model, data, path, resume):
    rows = pandas.read_csv(path)
    loader = DataLoader(TensorDataset(data.inputs(rows)), 256)
    found = torch.cat(trainer.predict(model, loader, ckpt_path=resume))
    rows.assign(prediction=[data.labels[index] for index in found]).to_csv("predictions.csv", index=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="run")
    parser.add_argument("--data", default="digits", choices=["digits", "table"])
    parser.add_argument("--net", default="mlp", choices=["mlp", "mine"])
    parser.add_argument("--schedule", default="cosine", choices=["cosine", "linear"])
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--find-lr", action="store_true")
    parser.add_argument("--resume")
    parser.add_argument("--predict")
    options = parser.parse_args()
    pl.seed_everything(0, workers=True)
    data = {"digits": Digits, "table": Table}[options.data](options.batch_size)
    model = Classifier(options.net, data.features, data.classes, options.lr, options.schedule)
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        logger=TensorBoardLogger("logs", options.name),
        callbacks=[
            LearningRateMonitor("step"),
            ModelCheckpoint(monitor="val/loss", filename="best", save_last=True),
            ModelCheckpoint(every_n_train_steps=30, filename="newest"),
        ],
        log_every_n_steps=1,
    )
    if options.find_lr:
        print("suggestion", Tuner(trainer).lr_find(model, data).suggestion())
    elif options.predict:
        predict(trainer, model, data, options.predict, options.resume)
    else:
        trainer.fit(model, data, ckpt_path=options.resume)
        trainer.test(datamodule=data, ckpt_path="best")


if __name__ == "__main__":
    main()
