"""Keeps the best and the newest checkpoint of a run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from trainer.checkpoint import BEST, history, numbered, read
from trainer.module import Module

Ends = int | Callable[[int], int]
"""An interval in updates, or a function that gives the next end after update `t`."""
NONE_YET: dict[str, Any] = {"value": None, "update": None, "scores": {}}


class Checkpointing(pl.Callback):
    """Saves after every validation and, where `every` is given, after every so many updates.

    The weights in `best.ckpt` are those that were scored, in the others those that train.

    `best.ckpt` is the best by `monitor` so far (the latest of equals), `update-N.ckpt` are the newest ones, of
    which `keep` stay (0: all).
    """

    def __init__(self, folder: Path, monitor: str, mode: str, every: Ends | None = None, keep: int = 1) -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.every, self.keep = every, keep
        self.source: Path | None = None
        self.best: dict[str, Any] = dict(NONE_YET)
        self._saved = -1

    def state_dict(self) -> dict[str, Any]:
        return {**self.best, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best so far, unless it was the best by another measure."""
        if (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode):
            self.best = {name: state_dict[name] for name in NONE_YET}

    def adopt(self, trainer: pl.Trainer) -> None:
        """Have the file of the best so far here, from the folder that this run resumes from; else start afresh."""
        places = [self.folder / BEST, *([self.source.parent / BEST] if self.source else [])]
        found = [path for path in places if path.exists() and read(path)["cadence"]["updates"] == self.best["update"]]
        if not found:
            self.best = dict(NONE_YET)
        elif found[0] != self.folder / BEST:
            trainer.strategy.checkpoint_io.save_checkpoint(read(found[0]), self.folder / BEST)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Module)
        self._saved = pl_module.clock.t
        if self.best["update"] is not None:
            self.adopt(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """SIGTERM stops a run between two blocks of updates: what is there can be kept.

        Not within a validation: a run that goes on from its end would miss what it says.
        """
        training = trainer.state.fn == "fit" and not trainer.validating
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1 and training:
            assert isinstance(pl_module, Module)
            self._save(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Module)
        last_of_leg = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self.every and not last_of_leg and _ends(self.every, pl_module.clock.t):
            self._save(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Module)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        value = trainer.callback_metrics[self.monitor].item()
        if self._improves(value):
            scores = {name: score.item() for name, score in trainer.callback_metrics.items() if name[:4] == "val/"}
            self.best = {"value": value, "update": pl_module.clock.t, "scores": scores}
            trainer.save_checkpoint(self.folder / BEST)
        pl_module.averaging.leave()
        self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Module)
        self._save(trainer, pl_module)  # where no data validates; after a validation there is nothing new to save

    def _improves(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        best = self.best["value"]
        return best is None or (value <= best if self.mode == "min" else value >= best)

    def _save(self, trainer: pl.Trainer, module: Module) -> None:
        """Write the newest checkpoint, and only then remove what is too old."""
        if self._saved == module.clock.t:
            return
        self._saved = module.clock.t
        module.drain()
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(numbered(self.folder, module.clock.t))
        if trainer.is_global_zero and self.keep:
            for old in history(self.folder)[: -self.keep]:
                old.unlink()


def _ends(every: Ends, t: int) -> bool:
    """Whether update `t` is where an interval ends."""
    return every(t - 1) == t if callable(every) else t % every == 0
