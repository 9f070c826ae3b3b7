"""What callbacks that watch a metric have in common: its value after each validation, and lines on what follows."""

import sys

import pytorch_lightning as pl

from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError


def never_validates(trainer: pl.Trainer) -> bool:
    """Whether a fit that begins will not validate."""
    loaded = trainer.val_dataloaders is not None
    return not trainer.enable_validation or (loaded and not sum(trainer.num_val_batches))


def watched_value(trainer: pl.Trainer, key: str, monitor: str) -> float | None:
    """The metric `monitor` at the end of a validation of a fit, as rank 0 has it; None in any other validation.

    Raises:
        ConfigError: it is not computed; `key` is where it was chosen.
    """
    if trainer.state.fn != "fit" or trainer.sanity_checking:
        return None
    known = trainer.callback_metrics
    if monitor not in known:
        raise ConfigError(f"{key}={monitor} is not computed: choose one of {', '.join(known)}.")
    return float(trainer.strategy.broadcast(known[monitor].item()))


def tell_event(trainer: pl.Trainer, line: str, t: int) -> None:
    """Log a line at the last update before `t`, which a run resumed at `t` keeps, and print it on stderr."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoard):
            logger.log_text("events", line, max(t - 1, 0))
    if trainer.is_global_zero:
        print(line, file=sys.stderr, flush=True)
