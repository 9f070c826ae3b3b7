"""Tells at the end of a fit what its log shows to be wrong."""

import sys
from pathlib import Path

import pytorch_lightning as pl

from trainer.doctor import Log, examined
from trainer.doctor.reading import scalars
from trainer.engine.module import Module
from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError


class Doctor(pl.Callback):
    """Reads the TensorBoard log when a fit ends or fails, and tells each finding in a line on stderr.

    It changes nothing in the run. `python scripts/doctor.py RUN` tells the same later.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not any(isinstance(logger, TensorBoard) for logger in trainer.loggers):
            raise ConfigError("callbacks.doctor reads the TensorBoard log, and there is none: set logger=tensorboard.")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._tell(trainer, pl_module, "")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Exception) and trainer.state.fn == "fit":
            self._tell(trainer, pl_module, f"{type(exception).__name__}: {exception}")

    def _tell(self, trainer: pl.Trainer, module: pl.LightningModule, error: str) -> None:
        if not trainer.is_global_zero or not isinstance(module, Module):
            return
        if error:
            module.flush(alone=True)
        for logger in trainer.loggers:
            logger.save()
            if isinstance(logger, TensorBoard) and any(Path(logger.log_dir).glob("events.out.tfevents*")):
                policy, length = module.spec.policy, module.horizon
                try:
                    series = scalars(Path(logger.log_dir))
                except ConfigError:  # it failed before its first update
                    return
                log = Log(series, length.total, policy.warmup.updates, length.batch_size, policy.base_lr, error)
                for one in examined(log):
                    print(f"doctor: {one.sign}: {one.seen}. Try {one.override}", file=sys.stderr, flush=True)
                return
