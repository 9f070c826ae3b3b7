"""The same task in plain Lightning: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from causal_lm import Progressions, padded
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader
from torchmetrics.text import Perplexity
from transformers import GPT2Config, GPT2LMHeadModel, get_cosine_schedule_with_warmup

SIZES = {"vocab_size": 10, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.1}


class Rows(pl.LightningDataModule):
    def __init__(self, batch_size=64):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(Progressions(1000, 1), self.batch_size, shuffle=True, drop_last=True, collate_fn=padded)

    def val_dataloader(self):
        return DataLoader(Progressions(200, 2), 4 * self.batch_size, collate_fn=padded)


class LanguageModel(pl.LightningModule):
    def __init__(self, lr=0.01, warmup=0.05, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = GPT2LMHeadModel(GPT2Config(**SIZES))
        self.perplexity = Perplexity(ignore_index=-100)

    def training_step(self, batch, batch_idx):
        loss = self.net(**batch).loss
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        found, labels = self.net(**batch), batch["labels"][:, 1:]
        self.perplexity(found.logits[:, :-1], labels)
        self.log("val/loss", found.loss, batch_size=int((labels != -100).sum()), sync_dist=True)
        self.log("val/perplexity", self.perplexity)

    def configure_optimizers(self):
        matrices, others = [], []
        for name, parameter in self.named_parameters():
            (matrices if parameter.ndim > 1 and ".h." in name else others).append(parameter)
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
    trainer.fit(LanguageModel(), Rows(), ckpt_path=resume)


if __name__ == "__main__":
    main()
