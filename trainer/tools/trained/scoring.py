"""The scores of a trained net, computed as training does."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.seed import isolate_rng

from trainer.engine.module import Module
from trainer.engine.step import PairStep
from trainer.lr import ConfigError


def scores(
    module: Module, trainer: pl.Trainer, batches: Any, stage: str = "test", occurs: Callable[[int], bool] | None = None
) -> dict[str, float]:
    """The loss and the metrics over all batches on the device, by name, as `result.json` has them for the test split.

    Args:
        module: with its weights in place.
        trainer: Lightning's, for one process.
        batches: any iterable of what the step takes, or a data module.
        stage: "val" or "test", whose step of the module is called.
        occurs: whether a target may be ignored, where the data is known; see `PairStep.skip_count`.
    """
    device, prefix = module.device, f"{stage}/"
    if not module.hooks.scored(stage):
        name = {"val": "validation_step", "test": "test_step"}[stage]
        raise ConfigError(f"{type(module.net).__name__} has no {name}: write one, or take another split.")
    with quiet(), isolate_rng(), _counting(module.step, occurs):  # scoring seeds the generators
        score = trainer.validate if stage == "val" else trainer.test
        of_module = isinstance(batches, pl.LightningDataModule)
        score(module, datamodule=batches, verbose=False) if of_module else score(module, batches, verbose=False)
    module.to(device).eval()  # Lightning leaves it on the CPU
    found = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in found.items()}


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's lines about the machine and its advice about loaders."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels):
                logger.setLevel(level)


@contextmanager
def _counting(step: Any, occurs: Callable[[int], bool] | None) -> Iterator[None]:
    """Leave out weights that only count targets, as training does where the data has no ignored one."""
    if occurs is None or not isinstance(step, PairStep):
        yield
        return
    weigh = step.weigh
    step.skip_count(occurs)
    try:
        yield
    finally:
        step.weigh = weigh
