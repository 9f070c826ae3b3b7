"""Keeps the best and the newest checkpoints of a run, and saves and stops it when a signal asks for that."""

import math
from collections.abc import Callable, Collection
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from trainer.checkpoint.best import Best
from trainer.checkpoint.finite import FiniteState
from trainer.checkpoint.io import BEST, checkpoint_path, checkpoints_in, good_checkpoints
from trainer.checkpoint.position import Position, call_last
from trainer.checkpoint.saving import RunFolder, telling_why
from trainer.checkpoint.snapshots import save_records, snapshot_path
from trainer.distributed.launch.restart_limit import RestartLimitReached, restart_limit_message
from trainer.distributed.launch.signals import TIME_IS_UP, Interrupted
from trainer.distributed.stop_signal import StopSignal
from trainer.engine.module import Module
from trainer.engine.update import Diverged
from trainer.lr.guard import Rollback

Interval = int | Callable[[int], int]
"""An interval in updates, or a function that gives the end of the interval that update `t` lies in."""


class Checkpointing(pl.Callback):
    """Saves after every validation and, where `every` is given, after every so many updates.

    `best.ckpt` is the best by `monitor` so far (the latest of equals), and holds the weights that were scored.
    `update-N.ckpt` are the newest ones, of which `keep` stay (0: all), and hold the weights that train; while scores
    are not finite, the newest from before stays, too. A state that is not finite is never saved: it ends the run. After
    each update in `snapshots` a snapshot of the run is kept (see `trainer.checkpoint.snapshots`). A save is the last
    act of its update, after all callbacks, hooks and loggers have acted.

    Between two chunks of updates, and between two batches of a validation, all ranks ask whether a signal stops the
    run: then it is saved and ends. A checkpoint saved before its validation is over says that this validation is due,
    and the run that goes on from it validates first. It holds the state of the callbacks from before the validation.
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
        self.folder, self.every, self.keep, self.snapshots = folder, every, keep, snapshots
        self._best = Best(folder, monitor, mode)
        self.source: Path | None = None
        self.stop_signal, self.stopped_by = StopSignal(), 0
        self.run_folder = RunFolder(folder.parent)
        self._position, self._saved, self._connected = Position(), -1, False
        self._finite = FiniteState()
        self._before: str | None = None  # the newest checkpoint from before the scores ceased to be finite
        self._states: dict[str, Any] = {}
        self._metrics: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        return {**self._best.state_dict(), "position": asdict(self._position), "before": self._before}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the position in the loops, and the last metrics; in a validation, the states from before it."""
        due = self._position.due or ("end" if trainer.validating else None)
        self._position = Position.of(trainer, due)
        interrupted = self._states if due == "validation" and trainer.validating else {}
        metrics = {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()}
        checkpoint["callbacks"] |= {**interrupted, self.state_key: {**self.state_dict(), "metrics": metrics}}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have Lightning go on from the same position."""
        if self.state_key in checkpoint["callbacks"]:
            checkpoint["loops"] = Position(**checkpoint["callbacks"][self.state_key]["position"]).loops()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._position, self._before = Position(**state_dict["position"]), state_dict["before"]
        self._metrics = state_dict.get("metrics", {})
        self._best.load_state_dict(state_dict)

    @property
    def monitor(self) -> str:
        """The metric that decides which checkpoint is the best."""
        return self._best.monitor

    @property
    def mode(self) -> str:
        """Whether that metric is to be small, `min`, or large, `max`."""
        return self._best.mode

    @property
    def best(self) -> dict[str, Any]:
        """The best so far: its value, its update, its scores and arrays; None and empty where there is none."""
        return self._best.found

    def check_best(self, path: Path, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint to go on from whose best one is damaged."""
        if state := checkpoint["callbacks"].get(self.state_key):
            self._best.check(state, path)

    def adopt(self) -> None:
        """Take along the best of the run that this one resumes from."""
        self._best.adopt(self.source)

    def best_checkpoint(self) -> dict[str, Any] | None:
        """The content of `best.ckpt`, if there is any."""
        return self._best.checkpoint()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Module)
        if trainer.is_global_zero:
            self.run_folder.begin()
        self._saved = -1 if self._position.due else pl_module.clock.t
        self.adopt()
        self.stop_signal.connect(trainer)
        self._finite.begin(pl_module, trainer.optimizers)
        self.stop_signal.limit.expect_save(3 * sum(one.nbytes for one in pl_module.parameters()))  # with two moments
        trainer.callback_metrics.update({name: value.to(pl_module.device) for name, value in self._metrics.items()})
        if not self._connected:
            call_last(
                trainer,
                partial(self._after_chunk, trainer, pl_module),
                partial(self._after_interval, trainer, pl_module),
            )
            pl_module.before_validation = partial(self._keep_states, trainer)
            pl_module.after_validation = partial(self._after_validation, trainer, pl_module)
            self._connected = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save a state to return to, where the guard rolls back."""
        assert isinstance(pl_module, Module)
        t = pl_module.clock.t
        if isinstance(pl_module.guard.rule, Rollback) and not checkpoint_path(self.folder, t).exists():
            self._saved = -1
            self._save(trainer, pl_module)

    def validation_due(self, checkpoint: dict[str, Any]) -> bool:
        """Whether a checkpoint was saved before its validation was over."""
        return checkpoint["callbacks"].get(self.state_key, {}).get("position", {}).get("due") == "validation"

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
        assert isinstance(pl_module, Module)
        self._stop_if_asked(trainer, pl_module)

    def _stop_if_asked(self, trainer: pl.Trainer, module: Module, validation_due: bool = False) -> None:
        if signum := self.stop_signal.received():
            module.averaging.swap_out()
            self._position = replace(self._position, due="validation" if validation_due else None)
            self._save(trainer, module)
            self.stopped_by = signum  # only after the save: a run that could not be saved has failed
            raise Interrupted(signum, module.clock.t)

    def _after_chunk(self, trainer: pl.Trainer, module: Module) -> None:
        """Save if it is due, or stop; what ends an interval that is not validated is saved after it."""
        ends = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or trainer.should_stop
        validates = ends and sum(trainer.num_val_batches) > 0
        if ends and not validates:
            return
        due = module.clock.t in self.snapshots or (self.every and _ends(self.every, module.clock.t))
        if due and not validates:
            self._save(trainer, module)
        self._stop_if_asked(trainer, module, validates)

    def _keep_states(self, trainer: pl.Trainer) -> None:
        """Keep the states of the callbacks, for a checkpoint of a run that is stopped in the validation that begins."""
        others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
        self._states = {one.state_key: deepcopy(state) for one in others if (state := one.state_dict())}

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

    def _after_validation(self, trainer: pl.Trainer, module: Module) -> None:
        """Keep the weights that were scored if they are the best."""
        self._position, self._states = replace(self._position, due=None), {}
        self._finite.check(module, trainer.optimizers, self.stop_signal)
        value = trainer.callback_metrics[self.monitor].item()
        there = checkpoints_in(self.folder)
        self._before = None if math.isfinite(value) or not there else self._before or there[-1].name
        if self._best.improves(value):
            scores = {name: score.item() for name, score in trainer.callback_metrics.items() if name[:4] == "val/"}
            arrays = {name: numbers for name, numbers in module.arrays.items() if name[:4] == "val/"}
            self._best.take(value, module.clock.t, scores, arrays)
            self.run_folder.check()
            trainer.save_checkpoint(self.folder / BEST)

    def _after_interval(self, trainer: pl.Trainer, module: Module) -> None:
        self._position = replace(self._position, due=None)
        self._save(trainer, module)

    def _save(self, trainer: pl.Trainer, module: Module) -> None:
        """Write the newest checkpoint, and only then remove the oldest."""
        if self._saved == module.clock.t:
            return
        self._finite.check(module, trainer.optimizers, self.stop_signal)
        self.run_folder.check()
        self._saved = module.clock.t
        if not self._position.due:
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
    newest = next(good_checkpoints(folder), None)
    return f"There is no checkpoint in {folder}." if newest is None else f"The newest checkpoint is {newest}."
