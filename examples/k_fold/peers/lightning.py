"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from k_fold import eights
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from scipy import stats
from sklearn.model_selection import StratifiedKFold
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from torch.utils.data import DataLoader, Subset, WeightedRandomSampler
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassRecall


class Folds(pl.LightningDataModule):
    def __init__(self, fold=0, folds=5, batch_size=32):
        super().__init__()
        self.batch_size = batch_size
        whole = eights()
        labels = whole.tensors[1]
        parts = StratifiedKFold(folds, shuffle=True, random_state=0).split(labels, labels)
        train, val = list(parts)[fold]
        self.train, self.val = Subset(whole, train), Subset(whole, val)
        self.weights = (1 / labels.bincount())[labels[train]]

    def train_dataloader(self):
        sampler = WeightedRandomSampler(self.weights, len(self.train))
        return DataLoader(self.train, self.batch_size, sampler=sampler, drop_last=True)

    def val_dataloader(self):
        return DataLoader(self.val, 4 * self.batch_size)


class Classifier(pl.LightningModule):
    def __init__(self, lr=0.01, warmup=0.05):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
        self.accuracy = MulticlassAccuracy(2, average="micro")
        self.recall = MulticlassRecall(2, average="none")
        self.f1 = MulticlassF1Score(2, average="none")

    def training_step(self, batch, batch_idx):
        images, targets = batch
        loss = functional.cross_entropy(self.net(images), targets, label_smoothing=0.1)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        images, targets = batch
        outputs = self.net(images)
        self.log("val/loss", functional.cross_entropy(outputs, targets, label_smoothing=0.1), sync_dist=True)
        for metric in (self.accuracy, self.recall, self.f1):
            metric.update(outputs, targets)

    def on_validation_epoch_end(self):
        self.log("val/accuracy", self.accuracy.compute())
        for name, metric in (("recall", self.recall), ("f1", self.f1)):
            self.log_dict({f"val/{name}/{i}": value for i, value in enumerate(metric.compute())})
        for metric in (self.accuracy, self.recall, self.f1):
            metric.reset()

    def configure_optimizers(self):
        matrices = [parameter for parameter in self.parameters() if parameter.ndim > 1]
        biases = [parameter for parameter in self.parameters() if parameter.ndim < 2]
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


def main(folder="outputs/lightning", resume=None, **options):
    scores = []
    for fold in range(5):
        pl.seed_everything(0, workers=True)
        best = ModelCheckpoint(f"{folder}/{fold}", monitor="val/f1/1", mode="max", save_last=True)
        trainer = pl.Trainer(
            max_epochs=5,
            logger=TensorBoardLogger(folder, version=fold),
            callbacks=[LearningRateMonitor("step"), best],
            log_every_n_steps=1,
            **options,
        )
        trainer.fit(Classifier(), Folds(fold), ckpt_path="last" if resume else None)
        scores.append(float(best.best_model_score))
    mean, error = sum(scores) / len(scores), stats.sem(scores)
    low, high = stats.t.interval(0.95, len(scores) - 1, mean, error) if error else (mean, mean)
    print(f"val/f1/1 {mean:.4f}, 95 % interval {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
