"""The progress of a run on stderr: bars on a terminal, plain lines elsewhere."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from time import monotonic
from typing import Any, TextIO

from pytorch_lightning import Callback, Trainer
from rich import progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

from trainer.log.validations import main_scores
from trainer.lr import ConfigError

WIDE = 110  # columns from which the bar spells its units out
Module = Any  # a LightningModule with `clock`, `horizon` and `recent`


@dataclass
class Stage:
    """A loop that started at time `began`: `done` of `total` steps, `start` of them in an earlier process.

    `worth(n)` is the work in the first n steps, for loops whose steps become larger.
    """

    name: str
    total: float
    began: float
    start: int = 0
    done: int = 0
    recent: dict[str, float] = field(default_factory=dict)
    worth: Callable[[Any], float] = float
    unit: str = "update"

    @property
    def count(self) -> str:
        """`440/1000`, or `440` where the total is not known."""
        return f"{self.done}/{self.total:.0f}" if isfinite(self.total) else str(self.done)

    @property
    def percentage(self) -> str:
        """` (44 %)`, or empty where the total is not known."""
        return f" ({100 * self.worth(self.done) / self.worth(self.total):.0f} %)" if 0 < self.total < inf else ""

    @property
    def elapsed(self) -> float:
        """Seconds since this process began the loop."""
        return monotonic() - self.began

    @property
    def remaining(self) -> float:
        """Seconds to go at the mean speed of this process; nan before its first step."""
        own = self.worth(self.done) - self.worth(self.start)
        return self.elapsed / own * (self.worth(self.total) - self.worth(self.done)) if own > 0 else nan

    @property
    def measures(self) -> list[str]:
        """The loss and the learning rate, as far as they are known."""
        formats = {"loss": "#.4g", "lr": ".2e"}
        return [f"{name} {self.recent[name]:{form}}" for name, form in formats.items() if name in self.recent]

    @property
    def speed(self) -> tuple[float, str]:
        """Samples per second as last measured, or else this process's updates per second; with the unit."""
        if "samples_per_second" in self.recent:
            return self.recent["samples_per_second"], "samples/s"
        return (self.done - self.start) / max(self.elapsed, 1e-9), "updates/s"


class Lines:
    """A plain line at every refresh, for log files."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def refresh(self, stages: list[Stage]) -> None:
        """Print the innermost stage."""
        stage = stages[-1]
        counter = stage.unit if stage.name == "train" else stage.name
        parts = [f"{counter} {stage.count}{stage.percentage}"]
        if stage.name == "train" and stage.done > stage.start:
            value, unit = stage.speed
            parts += [*stage.measures, f"{format_number(value)} {unit}", f"{format_time(stage.remaining)} left"]
        self.print("  ".join(parts))

    def print(self, line: str) -> None:
        """Print `line` unchanged and without wrapping."""
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def drop(self, stages: list[Stage]) -> None:
        """Nothing: printed lines stay."""

    def close(self) -> None:
        """Nothing to clean up."""


class StatusColumn(progress.ProgressColumn):
    """The numbers of a stage, on a narrow console in short form."""

    def __init__(self, console: Console) -> None:
        super().__init__(Column(no_wrap=True))
        self._wide = console.width >= WIDE

    def render(self, task: progress.Task) -> Text:
        """The count; for training also loss, rate, speed and time."""
        stage: Stage = task.fields["stage"]
        parts = [(stage.count.rjust(2 * len(f"{stage.total:.0f}") + 1), "bold")]  # so that the bar keeps its width
        if stage.name == "train":
            value, unit = stage.speed
            elapsed, remaining = format_time(stage.elapsed), format_time(stage.remaining)
            speed, times = f"{format_number(value)} {unit}", f"{elapsed}  {remaining} left"
            if not self._wide:
                speed = f"{format_short(value)}/s" if unit == "samples/s" else speed
                times = f"{elapsed.removeprefix('0:')} < {remaining.removeprefix('0:')}"
            parts += [*((measure, "") for measure in stage.measures), (speed, "dim"), (times, "cyan")]
        return Text(" ") + Text("  ").join(Text(text, style) for text, style in parts)


class Bars:
    """A bar for every stage, redrawn in place; other output appears above the bars."""

    def __init__(self, console: Console) -> None:
        self._progress = progress.Progress(
            progress.TextColumn("{task.description}", "bold cyan", table_column=Column(no_wrap=True, min_width=9)),
            progress.BarColumn(None, table_column=Column(ratio=1, min_width=8)),
            StatusColumn(console),
            console=console,
            auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(),
            expand=True,
        )
        self._tasks: list[progress.TaskID] = []
        self._moved: list[tuple[logging.StreamHandler, TextIO]] = []

    def refresh(self, stages: list[Stage]) -> None:
        """Redraw the bars, one for each of these stages."""
        while len(self._tasks) > len(stages):
            self._progress.remove_task(self._tasks.pop())
        for stage in stages[len(self._tasks) :]:
            total = stage.worth(stage.total) if isfinite(stage.total) else None
            self._tasks.append(self._progress.add_task(stage.name, total=total, stage=stage))
        for task, stage in zip(self._tasks, stages):
            self._progress.update(task, completed=stage.worth(stage.done))
        if self._progress.live.is_started:
            self._progress.refresh()
        else:
            self._start()

    def print(self, line: str) -> None:
        """Print `line` above the bars."""
        self._progress.console.print(Text(line), soft_wrap=True)

    def drop(self, stages: list[Stage]) -> None:
        """Remove the bar of a stage that has ended."""
        self.refresh(stages)

    def close(self) -> None:
        """Stop drawing; the terminal and the log handlers are restored."""
        for handler, stream in self._moved:
            handler.setStream(stream)
        self._moved.clear()
        self._progress.stop()

    def _start(self) -> None:
        """Start drawing, and make log handlers that write to the old stdout or stderr print above the bars."""
        old = sys.stdout, sys.stderr
        self._progress.start()
        new = sys.stdout, sys.stderr
        for handler in stream_handlers():
            for before, after in zip(old, new):
                if handler.stream is before is not after:
                    self._moved.append((handler, before))
                    handler.setStream(after)


def stream_handlers() -> list[logging.StreamHandler]:
    """Every handler in use that writes to a stream."""
    loggers = [logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    return [handler for handler in handlers if isinstance(handler, logging.StreamHandler)]


def format_time(seconds: float) -> str:
    """`1:02:03`; `-:--:--` where the time is not known."""
    if not isfinite(seconds):
        return "-:--:--"
    minute, second = divmod(round(seconds), 60)
    return f"{minute // 60}:{minute % 60:02d}:{second:02d}"


def format_number(value: float) -> str:
    """At least three significant digits, and no exponent: `48120`, `8.25`."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def format_short(value: float) -> str:
    """In thousands, millions or billions where large: `48.1k`."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{prefix}"
    return f"{value:.3g}"


class ErrorConsole(Console):
    """stderr; a broken pipe raises BrokenPipeError, where rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise


def open_display(console: Console | None = None) -> Bars | Lines:
    """Bars if `console`, by default stderr, is a terminal that can redraw, outside CI; lines otherwise."""
    console = console or ErrorConsole(stderr=True)
    redraws = console.is_terminal and not console.is_dumb_terminal and not os.environ.get("CI")
    return Bars(console) if redraws else Lines(console)


class Progress(Callback):
    """Shows updates, loss, learning rate, throughput and time left, on rank zero and on stderr.

    A terminal gets bars; a log file, a dumb terminal or a CI job gets plain lines. The module supplies `clock.at`,
    `horizon.total` and `recent`, its last flushed `loss`, `lr` and `samples_per_second`: plain numbers, so that no
    redraw waits for the device. If the terminal is gone, the run continues without a display.

    Args:
        refresh_per_second: the most redraws of the bars per second.
        lines_every: seconds between two plain lines.

    Raises:
        ConfigError: one of the two is not a finite number above zero.
    """

    def __init__(self, refresh_per_second: float = 10.0, lines_every: float = 10.0) -> None:
        for name, value in (("refresh_per_second", refresh_per_second), ("lines_every", lines_every)):
            if not (value > 0 and isfinite(value)):
                raise ConfigError(f"{name}={value} is out of range: give a finite number above zero.")
        self.console: Console | None = None
        self._bar_interval, self._line_interval = 1 / refresh_per_second, lines_every
        self._display: Bars | Lines | None = None
        self._stages: list[Stage] = []
        self._due = -inf

    def on_train_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Start the training display, at the update at which this process starts."""
        clock, horizon = pl_module.clock, pl_module.horizon
        unit = "update" if clock.tau is None else "iteration"
        stage = Stage("train", horizon.total, monotonic(), clock.at, clock.at, worth=horizon.growth.at, unit=unit)
        self._begin(trainer, stage)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Redraw, if due."""
        if monotonic() >= self._due:
            self.on_train_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Redraw with the current state."""
        if self._stages:
            done = min(pl_module.clock.at, pl_module.horizon.total)  # the last gain may lead past the end
            self._stages[0].done, self._stages[0].recent = done, pl_module.recent
            self._refresh()

    def on_validation_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Start the display of a validation, or of Lightning's sanity check."""
        checking = trainer.sanity_checking
        batches = trainer.num_sanity_val_batches if checking else trainer.num_val_batches
        self._begin(trainer, Stage("check" if checking else "validate", sum(batches), monotonic()))

    def on_test_start(self, trainer: Trainer, pl_module: Module) -> None:
        """Start the display of a test."""
        self._begin(trainer, Stage("test", sum(trainer.num_test_batches), monotonic()))

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Module, *batch: Any) -> None:
        """Count a batch; redraw, if due."""
        if self._stages:
            self._stages[-1].done += 1
            self._refresh_if_due()

    def on_test_batch_end(self, trainer: Trainer, pl_module: Module, *batch: Any) -> None:
        """Count a batch; redraw, if due."""
        self.on_validation_batch_end(trainer, pl_module, *batch)

    def on_validation_end(self, trainer: Trainer, pl_module: Module) -> None:
        """Print the metrics, except those of Lightning's sanity check."""
        if not self._stages:
            return
        stage = self._stages.pop()
        self._try(lambda display: display.drop(self._stages))
        if stage.name != "check":
            scores = {tag: score for tag, score in trainer.callback_metrics.items() if not tag.startswith("train")}
            parts = [f"{tag} {float(score):#.4g}" for tag, score in main_scores(scores).items()]
            line = "  ".join([f"{stage.name} at update {pl_module.clock.t}", *parts])
            self._try(lambda display: display.print(line))
        if not self._stages:
            self._close()

    on_test_end = on_validation_end

    def on_exception(self, trainer: Trainer, pl_module: Module, exception: BaseException) -> None:
        """Restore the terminal."""
        self._close()

    def teardown(self, trainer: Trainer, pl_module: Module, stage: str) -> None:
        """Restore the terminal."""
        self._close()

    def _begin(self, trainer: Trainer, stage: Stage) -> None:
        if trainer.is_global_zero:
            self._display = self._display or open_display(self.console)
            self._stages.append(stage)
            self._refresh_if_due()

    def _refresh_if_due(self) -> None:
        if monotonic() >= self._due:
            self._refresh()

    def _refresh(self) -> None:
        self._try(lambda display: display.refresh(self._stages))
        self._due = monotonic() + (self._bar_interval if isinstance(self._display, Bars) else self._line_interval)

    def _try(self, act: Callable[[Bars | Lines], None]) -> None:
        if self._display is None:
            return
        try:
            act(self._display)
        except (OSError, ValueError):  # the terminal or the reader of the pipe is gone
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
