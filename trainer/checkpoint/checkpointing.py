"""Keeps the best and the newest checkpoint of a run."""

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from trainer.checkpoint.io import BEST, history, numbered, read
from trainer.checkpoint.snapshots import leave, point
from trainer.distributed.launch.signals import Stopped
from trainer.distributed.stop_signal import StopSignal
from trainer.engine.module import Module

Ends = int | Callable[[int], int]
"""An interval in updates, or a function that gives the next end after update `t`."""
NONE_YET: dict[str, Any] = {"value": None, "update": None, "scores": {}}


class Checkpointing(pl.Callback):
    """Saves after every validation and, where `every` is given, after every so many updates.

    The weights in `best.ckpt` are those that were scored, in the others those that train.

    `best.ckpt` is the best by `monitor` so far (the latest of equals), `update-N.ckpt` are the newest ones, of
    which `keep` stay (0: all). After each update in `branches` the run is kept whole (see `trainer.snapshots`).

    Between two blocks of updates, and between two batches of a validation, all ranks ask whether a signal shall stop
    the run: then it is saved and left. What is saved before its validation is over owes it, and pays when it goes on.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        mode: str,
        every: Ends | None = None,
        keep: int = 1,
        branches: Collection[int] = (),
    ) -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.every, self.keep, self.branches = every, keep, branches
        self.source: Path | None = None
        self.best: dict[str, Any] = dict(NONE_YET)
        self.halt, self.stopped_by = StopSignal(), 0
        self._owing, self._saved = False, -1

    def state_dict(self) -> dict[str, Any]:
        return {**self.best, "monitor": self.monitor, "mode": self.mode, "owing": self._owing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best so far, unless it was the best by another measure."""
        self._owing = state_dict.get("owing", False)
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
        self._saved = -1 if self._owing else pl_module.clock.t
        if self.best["update"] is not None:
            self.adopt(trainer)
        self.halt.begin(trainer)

    def owes(self, checkpoint: dict[str, Any]) -> bool:
        """Whether a checkpoint was written before its validation was over."""
        return checkpoint["callbacks"].get(self.state_key, {}).get("owing", False)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make up for the validation that the run was stopped in, as if it had not been."""
        assert isinstance(pl_module, Module)
        self._stop_if_asked(trainer, pl_module, self._owing)
        if self._owing:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
            self._owing = False
            trainer.should_stop |= pl_module.clock.t >= pl_module.horizon.total

    def _stop_if_asked(self, trainer: pl.Trainer, module: Module, owing: bool) -> None:
        if signum := self.halt.signal():
            module.averaging.leave()
            self._owing = owing
            self._save(trainer, module)
            self.stopped_by = signum  # and what could not be saved has failed
            raise Stopped(signum, module.clock.t)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Module)
        last_of_leg = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or pl_module.over
        due = pl_module.clock.t in self.branches or (self.every and _ends(self.every, pl_module.clock.t))
        if due and not last_of_leg:
            self._save(trainer, pl_module)
        self._stop_if_asked(trainer, pl_module, owing=last_of_leg and sum(trainer.num_val_batches) > 0)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Every rank has as many batches as the others (`data.shard`); after the last one the scores are shared."""
        assert isinstance(pl_module, Module)
        if trainer.state.fn == "fit" and not trainer.fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch:
            self._stop_if_asked(trainer, pl_module, owing=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Module)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._owing = False
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
        module.flush()
        for logger in trainer.loggers:
            logger.save()
        if module.clock.t in self.branches:
            self._keep(trainer, point(self.folder, module.clock.t))
        trainer.save_checkpoint(numbered(self.folder, module.clock.t))
        if trainer.is_global_zero and self.keep:
            for old in history(self.folder)[: -self.keep]:
                old.unlink()

    def _keep(self, trainer: pl.Trainer, path: Path) -> None:
        """Keep the run as it is; who waits for the checkpoint finds the rest beside it."""
        if trainer.is_global_zero:
            leave(self.folder.parent, path.parent, self.folder / BEST if self.best["update"] is not None else None)
        trainer.save_checkpoint(path)


def _ends(every: Ends, t: int) -> bool:
    """Whether update `t` is where an interval ends."""
    return every(t - 1) == t if callable(every) else t % every == 0
