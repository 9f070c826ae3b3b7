"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from token_classification import TAGS, Wishes, padded
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassF1Score
from transformers import BertConfig, BertForTokenClassification, get_cosine_schedule_with_warmup

SIZES = {
    "num_labels": 4,
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "initializer_range": 0.1,
}


class WishData(pl.LightningDataModule):
    def __init__(self, batch_size=64):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(Wishes(1000, 1), self.batch_size, shuffle=True, drop_last=True, collate_fn=padded)

    def val_dataloader(self):
        return DataLoader(Wishes(250, 2), 4 * self.batch_size, collate_fn=padded)


class Tagger(pl.LightningModule):
    def __init__(self, lr=0.01, warmup=0.05, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = BertForTokenClassification(BertConfig(**SIZES))
        self.f1 = MulticlassF1Score(len(TAGS), average="none", ignore_index=-100)

    def training_step(self, batch, batch_idx):
        loss = self.net(**batch).loss
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        found, labels = self.net(**batch), batch["labels"]
        self.f1.update(found.logits.flatten(0, 1), labels.flatten())
        self.log("val/loss", found.loss, batch_size=int((labels != -100).sum()), sync_dist=True)

    def on_validation_epoch_end(self):
        self.log_dict({f"val/f1/{tag}": value for tag, value in zip(TAGS, self.f1.compute())})
        self.f1.reset()

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
        max_epochs=8,
        check_val_every_n_epoch=4,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val/loss", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(Tagger(), WishData(), ckpt_path=resume)


if __name__ == "__main__":
    main()
