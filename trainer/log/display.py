"""How progress looks on stderr: rows of bars on a terminal, plain lines elsewhere."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from time import monotonic
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

WIDE = 110  # columns from which the bar spells its units out


@dataclass
class Stage:
    """A loop that `began` at that time: `done` of `total`, `start` of them before; n steps are `worth(n)` of work."""

    name: str
    total: float
    began: float
    start: int = 0
    done: int = 0
    recent: dict[str, float] = field(default_factory=dict)
    worth: Callable[[Any], float] = float
    unit: str = "update"

    @property
    def counted(self) -> str:
        """`440/1000`, or `440` where the end is not known."""
        return f"{self.done}/{self.total:.0f}" if isfinite(self.total) else str(self.done)

    @property
    def share(self) -> str:
        """` (44 %)`, or nothing where the end is not known."""
        return f" ({100 * self.worth(self.done) / self.worth(self.total):.0f} %)" if 0 < self.total < inf else ""

    @property
    def elapsed(self) -> float:
        """Seconds since this process began the loop."""
        return monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds to go at the mean pace of this process; nan before its first step."""
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
    """A plain line for every call, for log files."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, stages: Sequence[Stage]) -> None:
        """Print the innermost stage."""
        stage = stages[-1]
        counter = stage.unit if stage.name == "train" else stage.name
        facts = [f"{counter} {stage.counted}{stage.share}"]
        if stage.name == "train" and stage.done > stage.start:
            value, unit = stage.speed
            facts += [*stage.measures, f"{rounded(value)} {unit}", f"{hours(stage.left)} left"]
        self.note("  ".join(facts))

    def note(self, line: str) -> None:
        """Print `line` as it is, on one line however long."""
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def drop(self, stages: Sequence[Stage]) -> None:
        """A stage has ended; printed lines stay."""

    def close(self) -> None:
        """Lines leave nothing to clean up."""


class Bar:
    """A row for every stage, redrawn in place; what is printed meanwhile appears above the rows."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=sys.stdout.isatty())
        self._moved: list[tuple[logging.StreamHandler, TextIO]] = []

    def show(self, stages: Sequence[Stage]) -> None:
        """Redraw the rows."""
        if not self._live.is_started:
            self._start()
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(no_wrap=True, style="bold cyan", min_width=len("validate"))
        table.add_column(ratio=1, min_width=8)
        table.add_column(no_wrap=True)
        for stage in stages:
            total = stage.worth(stage.total) if isfinite(stage.total) else None
            table.add_row(stage.name, ProgressBar(total, stage.worth(stage.done)), self._status(stage))
        self._live.update(table, refresh=True)

    def note(self, line: str) -> None:
        """Print `line` above the rows."""
        self._console.print(Text(line), soft_wrap=True)

    def drop(self, stages: Sequence[Stage]) -> None:
        """A stage has ended: its row goes."""
        self.show(stages)

    def close(self) -> None:
        """Leave the rows as last shown, and the terminal and the log handlers as they were."""
        for handler, stream in self._moved:
            handler.setStream(stream)
        self._moved.clear()
        self._live.stop()

    def _start(self) -> None:
        """Start drawing; log handlers that hold the old stdout or stderr must print above the rows too."""
        old = sys.stdout, sys.stderr
        self._live.start()
        new = sys.stdout, sys.stderr
        for handler in stream_handlers():
            for before, after in zip(old, new):
                if handler.stream is before is not after:
                    self._moved.append((handler, before))
                    handler.setStream(after)

    def _status(self, stage: Stage) -> Text:
        facts = [(stage.counted.rjust(2 * len(f"{stage.total:.0f}") + 1), "bold")]  # so the bar keeps its width
        if stage.name == "train":
            value, unit = stage.speed
            elapsed, left = hours(stage.elapsed), hours(stage.left)
            pace, times = f"{rounded(value)} {unit}", f"{elapsed}  {left} left"
            if self._console.width < WIDE:
                pace = f"{prefixed(value)}/s"
                times = f"{elapsed.removeprefix('0:')} < {left.removeprefix('0:')}"
            facts += [*((measure, "") for measure in stage.measures), (pace, "dim"), (times, "cyan")]
        return Text("  ").join(Text(fact, style) for fact, style in facts)


def stream_handlers() -> list[logging.StreamHandler]:
    """Every handler in use that writes to a stream."""
    loggers = [logging.root, *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    return [handler for handler in handlers if isinstance(handler, logging.StreamHandler)]


def hours(seconds: float) -> str:
    """`1:02:03`; `-:--:--` where the time is not known."""
    if not isfinite(seconds):
        return "-:--:--"
    minute, second = divmod(round(seconds), 60)
    return f"{minute // 60}:{minute % 60:02d}:{second:02d}"


def rounded(value: float) -> str:
    """At least three significant digits, and no exponent: `48120`, `8.25`."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def prefixed(value: float) -> str:
    """In thousands, millions or billions: `48.1k`."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{prefix}"
    return f"{value:.3g}"


class ErrorConsole(Console):
    """stderr. Where rich would end the process because nobody reads it any more, this raises the error."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise


Display = Bar | Lines


def open_display(console: Console | None = None) -> Display:
    """A bar if `console`, by default stderr, is a terminal that can redraw and no CI job; lines if not."""
    console = console or ErrorConsole(stderr=True)
    redraws = console.is_terminal and not console.is_dumb_terminal and not os.environ.get("CI")
    return Bar(console) if redraws else Lines(console)
