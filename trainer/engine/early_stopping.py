"""Ends a run when a metric has stopped improving, and says so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from trainer.engine.task import Task
from trainer.engine.watched_metric import never_validates, tell_event, watched_value
from trainer.lr import ConfigError
from trainer.lr.bounds import integer, number

_MOST = 10**6


@dataclass(frozen=True)
class Standing:
    """The best of the values so far and its update, and how many validations since then have not improved on it."""

    best: float
    best_at: int
    waits: int


def standing(measured: Sequence[tuple[int, float]], mode: str, min_delta: float) -> Standing:
    """Where values measured after these updates stand: one is better where it passes the best by over `min_delta`.

    A value that is not finite is not better.

    >>> standing([(10, 0.5), (20, 0.45), (30, 0.41), (40, 0.41)], "min", 0.06)
    Standing(best=0.41, best_at=30, waits=1)
    """
    sign = 1.0 if mode == "min" else -1.0
    best, best_at, waits = math.inf, 0, 0
    for t, value in measured:
        if math.isfinite(value) and sign * value + min_delta < best:
            best, best_at, waits = sign * value, t, 0
        else:
            waits += 1
    return Standing(sign * best, best_at, waits)


class EarlyStopping(pl.Callback):
    """Ends a fit after `patience` validations in a row without a value of `monitor` better by over `min_delta`.

    With patience 0 the first such validation ends it, as with 1. `mode` is "min" or "max", or None for what the metric
    says itself. The checkpoint holds what was measured and no setting: a resumed run decides by the settings of its own
    config. All processes follow the metric of rank zero. Prechelt 1998, doi:10.1007/3-540-49430-8_3.

    Raises:
        ConfigError: a setting is out of range; the metric is not computed, or does not say which direction is better.
    """

    def __init__(
        self, monitor: str = "val/loss", mode: str | None = None, patience: int = 5, min_delta: float = 0.0
    ) -> None:
        if not isinstance(monitor, str) or not monitor.strip():
            raise ConfigError(f"monitor={monitor!r} is not a metric: give one that validation computes, as val/loss.")
        if mode not in ("min", "max", None):
            raise ConfigError(f"mode={mode!r} is not known: choose min or max, or null for the metric's own.")
        integer("patience", patience, "it is a number of validations, 0 or more.", low=0, high=_MOST)
        number("min_delta", min_delta, "it is how much better than the best counts, 0 or more.", low=0.0)
        self.monitor, self.mode, self.patience, self.min_delta = monitor, mode, patience, float(min_delta)
        self.fresh, self.measured = False, list[tuple[int, float]]()

    def connect(self, task: Task, fresh: bool) -> None:
        """Take the direction of the metric; a `fresh` one ignores what was measured before a resume."""
        self.mode, self.fresh = self.mode or task.better(self.monitor.removeprefix("val/")), fresh
        if self.mode is None and self.monitor.startswith("val/"):  # others are not computed: the rehearsal says so
            raise ConfigError(
                f"EarlyStopping.monitor={self.monitor}: its metric does not say whether higher is better: "
                "give mode=min or mode=max."
            )

    def state_dict(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "measured": [list(one) for one in self.measured]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what was measured, unless it is another metric, or the learning-rate curve has changed."""
        if state_dict["monitor"] == self.monitor and not self.fresh:
            self.measured = [(t, value) for t, value in state_dict["measured"]]

    @property
    def reason(self) -> str | None:
        """Why the run ends after the last validation, in words; None where it goes on."""
        assert self.mode is not None
        now = standing(self.measured, self.mode, self.min_delta)
        if not now.waits or now.waits < self.patience:
            return None
        count = f"{now.waits} validation{'s' if now.waits > 1 else ''}"
        if not math.isfinite(now.best):
            return f"{self.monitor} has not been a finite number for {count}"
        margin = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return f"{self.monitor} has not improved{margin} on {now.best:.6g} of update {now.best_at} for {count}"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a run that never validates."""
        if never_validates(trainer):
            raise ConfigError(
                f"EarlyStopping.monitor={self.monitor}, but the run never validates: leave it out, or give validation "
                "data."
            )

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, and stop the run if it has waited long enough."""
        value, t = watched_value(trainer, "EarlyStopping.monitor", self.monitor), trainer.global_step
        if value is None:
            return
        self.measured = [*(one for one in self.measured if one[0] < t), (t, value)]  # later ones were rolled back
        if reason := self.reason:
            trainer.should_stop = True
            tell_event(trainer, f"update {t}: early stopping: {reason}", t)
