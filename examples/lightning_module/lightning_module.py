"""A LightningModule and a LightningDataModule, as they are written for Lightning's own trainer."""

import pytorch_lightning as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset, random_split
from torchmetrics.classification import MulticlassAccuracy


class LitDigits(pl.LightningModule):
    def __init__(self, width: int = 64, lr: float = 3e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 10))
        self.accuracy = MulticlassAccuracy(10, average="micro")

    def training_step(self, batch, batch_idx):
        images, digits = batch
        return functional.cross_entropy(self.net(images), digits)

    def validation_step(self, batch, batch_idx):
        images, digits = batch
        logits = self.net(images)
        self.accuracy(logits, digits)
        self.log("val_loss", functional.cross_entropy(logits, digits))
        self.log("val_acc", self.accuracy)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)]


class DigitsData(pl.LightningDataModule):
    def __init__(self, batch_size: int = 32):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        images, digits = load_digits(return_X_y=True)
        whole = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(digits))
        self.train, self.val = random_split(whole, [1437, 360], torch.Generator().manual_seed(0))

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, 120)
