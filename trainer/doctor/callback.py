"""Reports at the end of a fit what its log shows to be wrong."""

import sys
from pathlib import Path

import pytorch_lightning as pl

from trainer.doctor.log import Log, read_scalars, weight_decay_of
from trainer.doctor.signs import examine, not_finite
from trainer.engine.module import Module
from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError

LARGEST = 100_000_000
"""Bytes of a log that is examined at the end of a fit: reading them takes some 30 seconds."""


class Doctor(pl.Callback):
    """Reads the TensorBoard log when a fit ends or fails, and prints a line on stderr for each finding.

    It says nothing where nothing is found, or where there is no TensorBoard log. It changes nothing in the run.
    `cadence doctor RUN` reports the same later.
    """

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
            if isinstance(logger, TensorBoard):
                for line in examined(Path(logger.log_dir), module, error):
                    print(line, file=sys.stderr, flush=True)
                return


def examined(folder: Path, module: Module, error: str) -> list[str]:
    """A line for each finding in the log of a run; none where it cannot be read."""
    files = list(folder.glob("events.out.tfevents*"))
    try:
        if sum(path.stat().st_size for path in files) > LARGEST:
            return [f"doctor: the log is large: run cadence doctor {folder} to have it examined"]
        series = read_scalars(folder)
    except (ConfigError, OSError):  # it failed before its first update, or the disk does
        return []
    policy, length = module.spec.policy, module.horizon
    decay = weight_decay_of(module.spec.origin["config"])
    log = Log(series, length.total, policy.warmup.updates, length.batch_size, policy.base_lr, decay, error)
    by_hand = module.hooks.optimizes_by_hand  # such as two nets that play against each other: no common loss falls
    found = not_finite(log) if by_hand else examine(log)
    return [f"doctor: {one.heading}: {one.seen}. Try {one.override}" for one in found]
