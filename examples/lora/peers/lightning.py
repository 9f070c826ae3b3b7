"""The same task in plain Lightning, both trainings: python -m peers.lightning."""

import pytorch_lightning as pl
import torch
from lora import Counting, padded
from peft import LoraConfig, get_peft_model
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

SIZES = {
    "vocab_size": 10,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "initializer_range": 0.1,
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]


class Rows(pl.LightningDataModule):
    def __init__(self, steps=(1, 2, 3), batch_size=64):
        super().__init__()
        self.steps, self.batch_size = steps, batch_size

    def train_dataloader(self):
        rows = Counting(1000, self.steps, 1)
        return DataLoader(rows, self.batch_size, shuffle=True, drop_last=True, collate_fn=padded)

    def val_dataloader(self):
        return DataLoader(Counting(200, self.steps, 2), 4 * self.batch_size, collate_fn=padded)


class LanguageModel(pl.LightningModule):
    def __init__(self, net, lr=0.01, warmup=0.05, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters(ignore=["net"])
        self.net = net

    def training_step(self, batch, batch_idx):
        loss = self.net(**batch).loss
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        counted = int((batch["labels"][:, 1:] != -100).sum())
        self.log("val/loss", self.net(**batch).loss, batch_size=counted, sync_dist=True)

    def on_save_checkpoint(self, checkpoint):
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        checkpoint["state_dict"] = {name: checkpoint["state_dict"][name] for name in trained}

    def configure_optimizers(self):
        matrices, others = [], []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                (matrices if parameter.ndim > 1 and "embed" not in name else others).append(parameter)
        groups = [
            {"params": matrices, "weight_decay": self.hparams.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=self.hparams.lr)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = get_cosine_schedule_with_warmup(optimizer, int(self.hparams.warmup * total), total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def trained(model, data, folder, resume=None, **options):
    trainer = pl.Trainer(
        max_epochs=5,
        check_val_every_n_epoch=5,
        logger=TensorBoardLogger(folder),
        callbacks=[LearningRateMonitor("step"), ModelCheckpoint(monitor="val/loss", save_last=True)],
        log_every_n_steps=1,
        **options,
    )
    model.strict_loading = False  # a checkpoint has only what is trained
    trainer.fit(model, data, ckpt_path=resume)


def main(folder="outputs/lightning", resume=None, **options):
    pl.seed_everything(0, workers=True)
    net = LlamaForCausalLM(LlamaConfig(**SIZES))
    trained(LanguageModel(net), Rows(), f"{folder}/pretrained", **options)
    adapted = get_peft_model(net, LoraConfig(r=4, lora_alpha=16, target_modules=LINEAR))
    trained(LanguageModel(adapted), Rows((-1, -2, -3)), f"{folder}/lora", resume, **options)
    adapted.save_pretrained(f"{folder}/adapter")


if __name__ == "__main__":
    main()
