"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy


class Digits(pl.LightningDataModule):
    def __init__(self, label_noise=0.0, batch_size=32):
        super().__init__()
        self.batch_size = batch_size
        images, targets = load_digits(return_X_y=True)
        draw = torch.Generator().manual_seed(0)
        order = torch.randperm(len(images), generator=draw)
        images, targets = torch.tensor(images / 16, dtype=torch.float32)[order], torch.tensor(targets)[order]
        wrong = torch.rand(1257, generator=draw) < label_noise
        targets[:1257][wrong] += torch.randint(1, 10, (int(wrong.sum()),), generator=draw)
        parts = zip(images.split([1257, 180, 360]), (targets % 10).split([1257, 180, 360]))
        self.train, self.val, self.test = (TensorDataset(*part) for part in parts)

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, 4 * self.batch_size)

    def test_dataloader(self):
        return DataLoader(self.test, 4 * self.batch_size)


def mlp(*widths):
    pairs = list(zip(widths, widths[1:]))
    return nn.Sequential(*(part for pair in pairs for part in (nn.Linear(*pair), nn.ReLU())))[:-1]


class Classifier(pl.LightningModule):
    def __init__(self, hidden=(256, 256), lr=0.003, warmup=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = mlp(64, *hidden, 10)
        self.val_accuracy = MulticlassAccuracy(10, average="micro")
        self.test_accuracy = MulticlassAccuracy(10, average="micro")

    def score(self, batch, split):
        images, targets = batch
        outputs = self.net(images)
        loss = functional.cross_entropy(outputs, targets, label_smoothing=0.1)
        self.log(f"{split}/loss", loss, batch_size=len(images), sync_dist=True)
        return outputs, loss

    def training_step(self, batch, batch_idx):
        return self.score(batch, "train")[1]

    def validation_step(self, batch, batch_idx):
        self.val_accuracy(self.score(batch, "val")[0], batch[1])
        self.log("val/accuracy", self.val_accuracy)

    def test_step(self, batch, batch_idx):
        self.test_accuracy(self.score(batch, "test")[0], batch[1])
        self.log("test/accuracy", self.test_accuracy)

    def configure_optimizers(self):
        matrices = [parameter for parameter in self.net.parameters() if parameter.ndim > 1]
        biases = [parameter for parameter in self.net.parameters() if parameter.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.01}, {"params": biases, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams.lr)
        total = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, int(self.hparams.warmup * total))
        parts = [
            LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup),
            CosineAnnealingLR(optimizer, total - warmup),
        ]
        schedule = SequentialLR(optimizer, parts, [warmup])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Student(Classifier):
    def __init__(self, teacher, hidden=(16,), temperature=2.0, soft=0.9, lr=0.01, warmup=0.05):
        super().__init__(hidden, lr, warmup)
        self.save_hyperparameters()
        self.teacher = Classifier.load_from_checkpoint(teacher).requires_grad_(False).eval()

    def score(self, batch, split):
        images, targets = batch
        outputs, heat = self.net(images), self.hparams.temperature
        given, right = ((one / heat).log_softmax(1) for one in (outputs, self.teacher.net(images)))
        soft = functional.kl_div(given, right, reduction="batchmean", log_target=True) * heat**2
        hard = functional.cross_entropy(outputs, targets)
        loss = self.hparams.soft * soft + (1 - self.hparams.soft) * hard
        losses = {f"{split}/loss": loss, f"{split}/soft": soft, f"{split}/hard": hard}
        self.log_dict(losses, batch_size=len(images), sync_dist=True)
        return outputs, loss

    def on_train_epoch_start(self):
        self.teacher.eval()

    def on_save_checkpoint(self, checkpoint):
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: value for name, value in state.items() if not name.startswith("teacher.")}

    def on_load_checkpoint(self, checkpoint):
        state = self.teacher.state_dict()
        checkpoint["state_dict"] |= {f"teacher.{name}": value for name, value in state.items()}


def main(folder="outputs/lightning", resume=None, **options):
    def trainer(name, epochs, every):
        best = ModelCheckpoint(f"{folder}/{name}", monitor="val/accuracy", mode="max", save_last=True)
        return pl.Trainer(
            max_epochs=epochs,
            check_val_every_n_epoch=every,
            logger=TensorBoardLogger(folder, name),
            callbacks=[LearningRateMonitor("step"), best],
            log_every_n_steps=1,
            **options,
        )

    pl.seed_everything(0, workers=True)
    teaching = trainer("teacher", 5, 5)
    teaching.fit(Classifier(), Digits(), ckpt_path="last" if resume else None)
    learning, data = trainer("student", 8, 2), Digits(label_noise=0.5)
    learning.fit(Student(f"{folder}/teacher/last.ckpt"), data, ckpt_path="last" if resume else None)
    learning.test(datamodule=data, ckpt_path="best")


if __name__ == "__main__":
    main()
