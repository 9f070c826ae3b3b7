"""What a template of Hydra and Lightning brings itself: its defaults, and a program that makes all parts and trains."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import OmegaConf

DEFAULTS = {
    "callbacks": {
        "rate": {"_target_": "pytorch_lightning.callbacks.LearningRateMonitor", "logging_interval": "step"},
        "checkpoint": {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", "save_last": True},
    },
    "logger": {"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "save_dir": "${folder}"},
    "trainer": {"_target_": "pytorch_lightning.Trainer", "log_every_n_steps": 1},
    "seed": 0,
}


def main(config: Path, folder: Path, resume: str | None = None, **options: Any) -> None:
    """Train and test what `config` describes; `options` are those of Lightning's trainer."""
    cfg: Any = OmegaConf.merge(DEFAULTS, OmegaConf.load(config), {"folder": str(folder), "trainer": options})
    pl.seed_everything(cfg.seed, workers=True)
    data, model, logger = instantiate(cfg.data), instantiate(cfg.model), instantiate(cfg.logger)
    callbacks = [instantiate(callback) for callback in cfg.callbacks.values()]
    trainer = instantiate(cfg.trainer, logger=logger, callbacks=callbacks)
    trainer.fit(model, data, ckpt_path=resume)
    if hasattr(data, "test_dataloader") and pl.utilities.model_helpers.is_overridden("test_dataloader", data):
        trainer.test(datamodule=data, ckpt_path="best")
