"""Keeps the best and the newest checkpoints of a run, and saves and stops it when a signal asks for that."""

import math
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from trainer.checkpoint.finite import FiniteState
from trainer.checkpoint.io import (
    BEST,
    DamagedCheckpoint,
    checkpoint_path,
    checkpoints_in,
    copy_checkpoint,
    is_good,
    read,
)
from trainer.checkpoint.saving import RunFolder, telling_why
from trainer.checkpoint.snapshots import save_records, snapshot_path
from trainer.distributed.launch.launcher import rank
from trainer.distributed.launch.restart_limit import RestartLimitReached, restart_limit_message
from trainer.distributed.launch.signals import TIME_IS_UP, Interrupted
from trainer.distributed.stop_signal import StopSignal
from trainer.engine.module import Module
from trainer.engine.update import Diverged
from trainer.lr import ConfigError

Interval = int | Callable[[int], int]
"""An interval in updates, or a function that gives the end of the interval that update `t` lies in."""
NONE_YET: dict[str, Any] = {"value": None, "update": None, "scores": {}, "arrays": {}}


class Checkpointing(pl.Callback):
    """Saves after every validation and, where `every` is given, after every so many updates.

    `best.ckpt` is the best by `monitor` so far (the latest of equals), and holds the weights that were scored.
    `update-N.ckpt` are the newest ones, of which `keep` stay (0: all), and hold the weights that train; while scores
    are not finite, the newest from before stays, too. A state that is not finite is never saved: it ends the run. After
    each update in `snapshots` a snapshot of the run is kept (see `trainer.checkpoint.snapshots`).

    Between two chunks of updates, and between two batches of a validation, all ranks ask whether a signal stops the
    run: then it is saved and ends. A checkpoint saved before its validation is over says that this validation is due,
    and the run that goes on from it validates first.
    """

    def __init__(
        self,
        folder: Path,
        monitor: str,
        mode: str,
        every: Interval | None = None,
        keep: int = 2,
        snapshots: Collection[int] = (),
    ) -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.every, self.keep, self.snapshots = every, keep, snapshots
        self.source: Path | None = None
        self.best: dict[str, Any] = dict(NONE_YET)
        self.stop_signal, self.stopped_by = StopSignal(), 0
        self.run_folder = RunFolder(folder.parent)
        self._validation_due, self._saved = False, -1
        self._finite = FiniteState()
        self._before: str | None = None  # the newest checkpoint from before the scores ceased to be finite
        self._adopted: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        state = {"monitor": self.monitor, "mode": self.mode, "validation_due": self._validation_due}
        return {**self.best, **state, "before": self._before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best so far, unless another metric or direction decided it."""
        self._validation_due, self._before = state_dict["validation_due"], state_dict["before"]
        if (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode):
            self.best = {name: state_dict.get(name, none) for name, none in NONE_YET.items()}

    def adopt(self) -> None:
        """Copy `best.ckpt` from the folder that this run resumes from; where it is not there, start without a best.

        Raises:
            ConfigError: it is damaged.
        """
        for folder in dict.fromkeys([self.folder, *([self.source.parent] if self.source else [])]):
            if not (folder / BEST).exists():
                continue
            checkpoint = self._read_best(folder)
            if checkpoint["cadence"]["updates"] == self.best["update"]:
                if folder != self.folder:
                    copy_checkpoint(folder / BEST, self.folder / BEST)
                self._adopted = checkpoint
                return
        if rank() == 0:
            print(f"{self._best_so_far()} is not there any more: the best is chosen anew from here on", file=sys.stderr)
        self.best = dict(NONE_YET)

    def best_checkpoint(self) -> dict[str, Any] | None:
        """The best so far, if there is any. One that was adopted is in memory already, one of this run is read."""
        if self.best["update"] is None:
            return None
        return self._read_best(self.folder) if self._adopted is None else self._adopted

    def _read_best(self, folder: Path) -> dict[str, Any]:
        try:
            return read(folder / BEST, "the best checkpoint")
        except DamagedCheckpoint as damage:
            raise ConfigError(
                f"{folder / BEST} is damaged: {damage.why}. {self._best_so_far()} is in it: put back a copy, or remove "
                "it to go on without."
            ) from damage

    def _best_so_far(self) -> str:
        return f"The best so far ({self.monitor} {self.best['value']:.6g} at update {self.best['update']})"

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Module)
        if trainer.is_global_zero:
            self.run_folder.begin()
        self._saved = -1 if self._validation_due else pl_module.clock.t
        if self.best["update"] is not None:
            self.adopt()
        self.stop_signal.connect(trainer)
        self._finite.begin(pl_module, trainer.optimizers)
        self.stop_signal.limit.expect_save(3 * sum(one.nbytes for one in pl_module.parameters()))  # with two moments

    def validation_due(self, checkpoint: dict[str, Any]) -> bool:
        """Whether a checkpoint was saved before its validation was over."""
        return checkpoint["callbacks"].get(self.state_key, {}).get("validation_due", False)

    def final_error(self, error: BaseException) -> BaseException:
        """The error that the run ends with, the same on all ranks: `RestartLimitReached` if its job may not restart."""
        if isinstance(error, Diverged):
            error.args = (f"{error} {describe_newest(self.folder)}",)
        if not isinstance(error, Interrupted):
            return error
        signum = error.signum
        if not self.stop_signal.ask_rank_zero(lambda: bool(restart_limit_message(signum))):
            return error
        self.stopped_by = 0  # no rank asks Slurm to requeue
        return RestartLimitReached(restart_limit_message(signum))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run a validation that is due, as if the run had not been stopped."""
        assert isinstance(pl_module, Module)
        self._stop_if_asked(trainer, pl_module, self._validation_due)
        if self._validation_due:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
            self._validation_due = False
            trainer.should_stop |= pl_module.clock.t >= pl_module.horizon.total

    def _stop_if_asked(self, trainer: pl.Trainer, module: Module, validation_due: bool) -> None:
        if signum := self.stop_signal.received():
            module.averaging.swap_out()
            self._validation_due = validation_due
            self._save(trainer, module)
            self.stopped_by = signum  # only after the save: a run that could not be saved has failed
            raise Interrupted(signum, module.clock.t)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Module)
        validates_next = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or pl_module.over
        due = pl_module.clock.t in self.snapshots or (self.every and _ends(self.every, pl_module.clock.t))
        if due and not validates_next:
            self._save(trainer, pl_module)
        self._stop_if_asked(trainer, pl_module, validates_next and sum(trainer.num_val_batches) > 0)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """Stop between two batches, as many on all ranks (`data.shard`); not after the last one."""
        assert isinstance(pl_module, Module)
        if trainer.state.fn == "fit" and not trainer.fit_loop.epoch_loop.val_loop.batch_progress.is_last_batch:
            self._stop_if_asked(trainer, pl_module, validation_due=True)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stop_signal.connect(trainer)

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: Any) -> None:
        """End at the time limit: a run that goes on repeats the test. A signal lets the test finish."""
        assert isinstance(pl_module, Module)
        if self.stop_signal.limit.finite and self.stop_signal.received() == TIME_IS_UP:
            self.stopped_by = TIME_IS_UP
            raise Interrupted(TIME_IS_UP, pl_module.clock.t)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Module)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._validation_due = False
        self._finite.check(pl_module, trainer.optimizers, self.stop_signal)
        value = trainer.callback_metrics[self.monitor].item()
        there = checkpoints_in(self.folder)
        self._before = None if math.isfinite(value) or not there else self._before or there[-1].name
        if self._improves(value):
            scores = {name: score.item() for name, score in trainer.callback_metrics.items() if name[:4] == "val/"}
            arrays = {name: numbers for name, numbers in pl_module.arrays.items() if name[:4] == "val/"}
            self.best = {"value": value, "update": pl_module.clock.t, "scores": scores, "arrays": arrays}
            self._adopted = None
            self.run_folder.check()
            trainer.save_checkpoint(self.folder / BEST)
        pl_module.averaging.swap_out()
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
        """Write the newest checkpoint, and only then remove the oldest."""
        if self._saved == module.clock.t:
            return
        self._finite.check(module, trainer.optimizers, self.stop_signal)
        self.run_folder.check()
        self._saved = module.clock.t
        if not self._validation_due:
            module.hooks.end_epoch()
        module.flush()
        for logger in trainer.loggers:
            logger.save()
        with self.stop_signal.limit.saving():
            if module.clock.t in self.snapshots:
                self._save_snapshot(trainer, snapshot_path(self.folder, module.clock.t))
            trainer.save_checkpoint(checkpoint_path(self.folder, module.clock.t))
        if trainer.is_global_zero and self.keep:
            for old in checkpoints_in(self.folder)[: -self.keep]:
                if old.name != self._before:
                    old.unlink()

    def _save_snapshot(self, trainer: pl.Trainer, path: Path) -> None:
        """Write the checkpoint last, so that a job that waits for it finds the records beside it."""
        if trainer.is_global_zero:
            best = self.folder / BEST if self.best["update"] is not None else None
            with telling_why(path):
                save_records(self.folder.parent, path.parent, best)
        trainer.save_checkpoint(path)


def _ends(every: Interval, t: int) -> bool:
    """Whether an interval ends at update `t`."""
    return every(t - 1) == t if callable(every) else t % every == 0


def describe_newest(folder: Path) -> str:
    """Which checkpoint of a folder to go on from: the newest that is not damaged."""
    newest = next((path for path in reversed(checkpoints_in(folder)) if is_good(path)), None)
    return f"There is no checkpoint in {folder}." if newest is None else f"The newest checkpoint is {newest}."
