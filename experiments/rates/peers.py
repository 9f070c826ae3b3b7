"""What else a person may take: Lightning's `lr_find`, the valley rule of fastai, and Optuna's TPE at equal cost."""

import contextlib
import io
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from pytorch_lightning.tuner.tuning import Tuner
from torch import nn
from torch.utils.data import DataLoader

from experiments.rates.sweeps import WIDE, sweeps_of
from experiments.rates.tasks import composed
from experiments.rates.truth import Truth
from trainer.config.components import build
from trainer.config.resolve import resolve
from trainer.config.settings import settings_of
from trainer.lr.range_rules import suggestions
from trainer.tools.tune.members import Member

LOWEST, HIGHEST = 1e-5, 1.0
"""Where TPE looks: what a person would give who knows nothing."""
BATCHES = 128


class Plain(pl.LightningModule):
    """The net, loss and optimizer of a task as a plain LightningModule."""

    def __init__(self, net: nn.Module, loss: Any, optimizer: Any, lr: float) -> None:
        super().__init__()
        self.net, self.loss, self.optimizer, self.lr = net, loss, optimizer, lr

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        inputs, targets = batch
        return self.loss(self.net(inputs), targets)

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters(), lr=self.lr)


def lr_find(name: str) -> float | None:
    """The suggestion of `Tuner.lr_find` as it is; None where it has none."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # it cannot load its own checkpoint of some optimizers
    cfg = composed(name)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        parts = build(resolve(settings_of(cfg)), Path(folder))
        drawn = parts.data.random_batches(0, 0, int(cfg.data.batch_size), BATCHES)
        batches = DataLoader([micro.batch for micro in drawn], batch_size=None)
        module: Any = parts.module
        clip = cfg.trainer.get("clip")
        plain = Plain(module.net, module.task.loss, instantiate(cfg.optimizer), float(cfg.optimizer.lr))
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            default_root_dir=folder,
            gradient_clip_val=clip,
            **quiet,  # type: ignore[arg-type]
        )
        found = Tuner(trainer).lr_find(plain, train_dataloaders=batches)
    return None if found is None else found.suggestion()


def valley(name: str, root: Path) -> float | None:
    """The median of the valley rule over three sweeps of a task, over all rates."""
    return suggestions(sweeps_of(name, root, *WIDE))["valley"].value


def tpe(truth: Truth, trials: int) -> float:
    """The best of so many trials of Optuna's TPE, each a whole run with seed 0."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def loss(trial: Any) -> float:
        rate = trial.suggest_float("lr", LOWEST, HIGHEST, log=True)
        made = truth.members.train(Member((f"optimizer.lr={rate:.6g}",), 0, truth.updates))
        return min(made.cost, 1e9)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(loss, n_trials=trials)
    return float(f"{study.best_params['lr']:.6g}")
