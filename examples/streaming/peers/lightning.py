"""The same task in plain Lightning: python -m peers.lightning. A resumed run reads the stream from its start."""

import pytorch_lightning as pl
import torch
from datasets.distributed import split_dataset_by_node
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from streaming import scaled, stream
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError


class Throws(pl.LightningDataModule):
    def __init__(self, batch_size=64):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        mine = split_dataset_by_node(stream(1), self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(mine, self.batch_size, collate_fn=scaled)

    def val_dataloader(self):
        return DataLoader(list(stream(2, 500)), 4 * self.batch_size, collate_fn=scaled)


class Regression(pl.LightningModule):
    def __init__(self, lr=0.01, warmup=0.05, decay=0.2, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
        self.mse, self.mae = MeanSquaredError(), MeanAbsoluteError()

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = functional.mse_loss(self.net(inputs), targets)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        inputs, targets = batch
        outputs = self.net(inputs)
        self.mse(outputs, targets)
        self.mae(outputs, targets)
        self.log("val/mse", self.mse)
        self.log("val/mae", self.mae)

    def configure_optimizers(self):
        matrices, others = [], []
        for parameter in self.parameters():
            (matrices if parameter.ndim > 1 else others).append(parameter)
        groups = [
            {"params": matrices, "weight_decay": self.hparams.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams.lr)
        total = self.trainer.max_steps
        warmup, decay = int(self.hparams.warmup * total), int(self.hparams.decay * total)

        def factor(t):
            rising = (t + 1) / warmup
            falling = 1 - max(0.0, (t - (total - decay)) / decay) ** 0.5
            return min(1.0, rising, falling)

        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}


def main(folder="outputs/lightning", resume=None, **options):
    pl.seed_everything(0, workers=True)
    trainer = pl.Trainer(
        max_steps=240,
        val_check_interval=120,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val/mse", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(Regression(), Throws(), ckpt_path=resume)


if __name__ == "__main__":
    main()
