"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from transformers import BertConfig, BertForSequenceClassification, get_cosine_schedule_with_warmup
from transformers_classifier import Reviews, padded

SIZES = {
    "vocab_size": 19,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
}


class ReviewData(pl.LightningDataModule):
    def __init__(self, batch_size=64):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(Reviews(1000, 1), self.batch_size, shuffle=True, drop_last=True, collate_fn=padded)

    def val_dataloader(self):
        return DataLoader(Reviews(250, 2), 4 * self.batch_size, collate_fn=padded)


class Classifier(pl.LightningModule):
    def __init__(self, lr=0.004, warmup=0.05, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = BertForSequenceClassification(BertConfig(num_labels=2, **SIZES))
        self.accuracy = MulticlassAccuracy(2, average="micro")

    def training_step(self, batch, batch_idx):
        loss = self.net(**batch).loss
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        found = self.net(**batch)
        self.accuracy(found.logits, batch["labels"])
        self.log("val/loss", found.loss, batch_size=len(batch["labels"]), sync_dist=True)
        self.log("val/accuracy", self.accuracy)

    def configure_optimizers(self):
        matrices, others = [], []
        for name, parameter in self.named_parameters():
            (matrices if parameter.ndim > 1 and "embeddings" not in name else others).append(parameter)
        groups = [
            {"params": matrices, "weight_decay": self.hparams.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams.lr)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = get_cosine_schedule_with_warmup(optimizer, int(self.hparams.warmup * total), total)
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
    trainer.fit(Classifier(), ReviewData(), ckpt_path=resume)


if __name__ == "__main__":
    main()
