"""Writes columns of the metric buffer into the loggers."""

from collections.abc import Iterable, Sequence
from typing import Any

from pytorch_lightning.loggers import Logger

from trainer.log.tensorboard import TensorBoard


def log_updates(
    loggers: Iterable[Logger],
    updates: Sequence[int],
    times: Sequence[float],
    columns: dict[str, list[Any]],
    samples_per_second: float,
) -> None:
    """Log each update with all its values, to TensorBoard at its own time; and how fast they were."""
    for logger in loggers:
        if isinstance(logger, TensorBoard):
            logger.log_updates(updates, times, columns)
        else:
            for i, t in enumerate(updates):
                logger.log_metrics({tag: column[i] for tag, column in columns.items() if column[i] is not None}, t)
        logger.log_metrics({"train/samples_per_second": samples_per_second}, updates[-1])
