"""The progress of a run: when to draw it, and from which numbers. It observes, and waits for no device."""

from collections.abc import Callable
from contextlib import suppress
from math import inf, isfinite
from time import monotonic
from typing import Any

from pytorch_lightning import Callback, Trainer
from rich.console import Console

from trainer.log.display import Bar, Display, Lines, Stage, open_display
from trainer.lr import ConfigError

Module = Any  # a LightningModule with `clock`, `horizon` and `recent`


class Progress(Callback):
    """Shows updates, loss, learning rate, throughput and time left, on rank zero and on stderr.

    A terminal gets a bar; a log file, a dumb terminal or a CI job gets plain lines. The module supplies
    `clock.at`, `horizon.total` and `recent`, its last drained `loss`, `lr` and `samples_per_second`: plain
    numbers, so no draw waits for the device. A display that fails, because the terminal has gone, falls
    silent and the run goes on.

    Args:
        refresh_per_second: how often the bar is redrawn at most.
        lines_every: seconds between two plain lines.

    Raises:
        ConfigError: one of the two is not a finite number above zero.
    """

    def __init__(self, refresh_per_second: float = 10.0, lines_every: float = 10.0) -> None:
        for name, value in (("refresh_per_second", refresh_per_second), ("lines_every", lines_every)):
            if not (value > 0 and isfinite(value)):
                raise ConfigError(f"{name}={value} gives progress no pace: set a number above zero")
        self.console: Console | None = None
        self._bar_interval, self._line_interval = 1 / refresh_per_second, lines_every
        self._display: Display | None = None
        self._stages: list[Stage] = []
        self._due = -inf

    def on_train_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Begin to count, from the update at which this process takes over."""
        clock, horizon = pl_module.clock, pl_module.horizon
        unit = "update" if clock.tau is None else "iteration"
        self._begin(
            trainer, Stage("train", horizon.total, monotonic(), clock.at, clock.at, {}, horizon.growth.at, unit)
        )

    def on_train_batch_end(self, trainer: Trainer, pl_module: Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Draw, if it is time."""
        if self._stages and monotonic() >= self._due:
            self._read(pl_module)
            self._draw()

    def on_train_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Draw the last state."""
        if self._stages:
            self._read(pl_module)
            self._draw()

    def on_validation_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Begin a validation, or Lightning's check of it before training."""
        checking = trainer.sanity_checking
        batches = trainer.num_sanity_val_batches if checking else trainer.num_val_batches
        self._begin(trainer, Stage("check" if checking else "validate", sum(batches), monotonic()))

    def on_test_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Begin a test."""
        self._begin(trainer, Stage("test", sum(trainer.num_test_batches), monotonic()))

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Module, *batch: Any) -> None:
        """Count a batch; draw, if it is time."""
        self._count()

    def on_test_batch_end(self, trainer: Trainer, pl_module: Module, *batch: Any) -> None:
        """Count a batch; draw, if it is time."""
        self._count()

    def on_validation_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Print the metrics, but for those of the check."""
        self._finish(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Print the metrics."""
        self._finish(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Module, exception: BaseException) -> None:
        """Clean the terminal."""
        self._close()

    def teardown(self, trainer: Trainer, pl_module: Module, stage: str) -> None:
        """Clean the terminal."""
        self._close()

    def _begin(self, trainer: Trainer, stage: Stage) -> None:
        if trainer.is_global_zero:
            self._display = self._display or open_display(self.console)
            self._stages.append(stage)
            self._draw_if_due()

    def _count(self) -> None:
        if self._stages:
            self._stages[-1].done += 1
            self._draw_if_due()

    def _finish(self, trainer: Trainer, pl_module: Module) -> None:
        if not self._stages:
            return
        stage = self._stages.pop()
        self._try(lambda display: display.drop(self._stages))
        if stage.name != "check":
            scores = {tag: score for tag, score in trainer.callback_metrics.items() if not tag.startswith("train")}
            facts = [f"{tag} {float(score):#.4g}" for tag, score in scores.items()]
            line = "  ".join([f"{stage.name} at update {pl_module.clock.t}", *facts])
            self._try(lambda display: display.note(line))
        if not self._stages:
            self._close()

    def _read(self, pl_module: Module) -> None:
        done = min(pl_module.clock.at, pl_module.horizon.total)  # the last gain may lead past the end
        self._stages[0].done, self._stages[0].recent = done, pl_module.recent

    def _draw_if_due(self) -> None:
        if monotonic() >= self._due:
            self._draw()

    def _draw(self) -> None:
        self._try(lambda display: display.show(self._stages))
        self._due = monotonic() + (self._bar_interval if isinstance(self._display, Bar) else self._line_interval)

    def _try(self, act: Callable[[Display], None]) -> None:
        if self._display is None:
            return
        try:
            act(self._display)
        except (OSError, ValueError):  # nobody reads the other end, or the stream is closed
            self._close_display()
            self._display = Lines(Console(quiet=True))

    def _close(self) -> None:
        self._close_display()
        self._stages.clear()
        self._due = -inf

    def _close_display(self) -> None:
        if self._display is not None:
            with suppress(OSError, ValueError):
                self._display.close()
        self._display = None
