"""Reports at the end of a fit what its log shows to be wrong."""

import sys
from pathlib import Path

import pytorch_lightning as pl

from trainer.doctor.log import Log, read_scalars
from trainer.doctor.signs import examine
from trainer.engine.module import Module
from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError


class Doctor(pl.Callback):
    """Reads the TensorBoard log when a fit ends or fails, and prints a line on stderr for each finding.

    It changes nothing in the run. `cadence doctor RUN` reports the same later.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not any(isinstance(logger, TensorBoard) for logger in trainer.loggers):
            raise ConfigError("callbacks.doctor reads the TensorBoard log, and there is none: set logger=tensorboard.")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._report(trainer, pl_module, "")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Exception) and trainer.state.fn == "fit":
            self._report(trainer, pl_module, f"{type(exception).__name__}: {exception}")

    def _report(self, trainer: pl.Trainer, module: pl.LightningModule, error: str) -> None:
        if not trainer.is_global_zero or not isinstance(module, Module):
            return
        if error:
            module.flush(alone=True)
        for logger in trainer.loggers:
            logger.save()
            if isinstance(logger, TensorBoard) and any(Path(logger.log_dir).glob("events.out.tfevents*")):
                policy, length = module.spec.policy, module.horizon
                try:
                    series = read_scalars(Path(logger.log_dir))
                except (ConfigError, OSError):  # it failed before its first update, or the disk does
                    return
                log = Log(series, length.total, policy.warmup.updates, length.batch_size, policy.base_lr, error)
                for finding in examine(log):
                    line = f"doctor: {finding.sign}: {finding.seen}. Try {finding.override}"
                    print(line, file=sys.stderr, flush=True)
                return
