# A net and a module for the template of Hydra and Lightning: two classes, and a schedule that moves with each update.
import torch
from lightning import LightningModule
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics import MaxMetric
from torchmetrics.classification import Accuracy


class Net(nn.Sequential):
    def __init__(self, in_features, classes, width=64):
        super().__init__(nn.Flatten(), nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, classes))


class Module(LightningModule):
    def __init__(self, net, classes, optimizer, scheduler):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore="net")
        self.net, self.best = net, MaxMetric()
        self.accuracy = nn.ModuleDict({s: Accuracy(task="multiclass", num_classes=classes) for s in ("val", "test")})

    def score(self, batch, stage):
        inputs, targets = batch
        outputs = self.net(inputs)
        loss = cross_entropy(outputs, targets, label_smoothing=0.1)
        self.log(f"{stage}/loss", loss, on_epoch=True)
        if stage in self.accuracy:
            self.accuracy[stage](outputs, targets)
            self.log(f"{stage}/acc", self.accuracy[stage])
        return loss

    def training_step(self, batch, batch_idx):
        return self.score(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.score(batch, "val")

    def on_validation_epoch_end(self):
        self.best(self.accuracy["val"].compute())
        self.log("val/acc_best", self.best.compute())

    def test_step(self, batch, batch_idx):
        self.score(batch, "test")

    def predict_step(self, batch, batch_idx):
        return self.net(batch[0]).argmax(1)

    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(params=self.parameters())
        scheduler = self.hparams.scheduler(optimizer, total_steps=int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def warmup_linear(optimizer, total_steps, warmup=0.05):
    begin = max(1, int(warmup * total_steps))
    parts = [
        torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=begin),
        torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=total_steps - begin),
    ]
    return torch.optim.lr_scheduler.SequentialLR(optimizer, parts, [begin])
