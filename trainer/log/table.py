"""The log as a table: a CSV file with one row per update, which is complete and in order at any time."""

import csv
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from trainer.files.atomic import replaced
from trainer.log.run_logger import RunLogger, check_writable
from trainer.lr import ConfigError

FILE = "metrics.csv"
KEYS = ["step", "time"]
LONGEST = 4096
"""Rows that wait in memory at most."""

Row = dict[str, Any]


class CSV(RunLogger):
    """Writes `metrics.csv` into `folder`, on rank zero only: one row per update, one column per tag.

    `step` is the number of the update, from 0, and `time` is in seconds since 1970. Numbers are written so that reading
    them back gives the same float64. A cell is empty where an update has no value. What is logged twice for an update
    is in its row, the later value last. A new column rewrites the file. Otherwise rows are appended every
    `flush_seconds`, and by `save`, `finalize` and `end`.

    Raises:
        ConfigError: `flush_seconds` is negative or not a number, or `folder` cannot be written.
    """

    def __init__(self, folder: str, flush_seconds: float = 5.0) -> None:
        super().__init__()
        if not flush_seconds >= 0:
            raise ConfigError(f"flush_seconds={flush_seconds} is not a time: give seconds, 0 or more")
        if not folder:
            raise ConfigError("folder='' is empty: give the folder of the table.")
        check_writable(Path(folder))
        self._path = Path(folder, FILE)
        self._flush_seconds, self._flushed = flush_seconds, time.monotonic()
        self._rows: dict[int, Row] = {}
        self._columns: list[str] | None = None
        self._last, self._last_at, self._last_row = -1, 0, Row()

    @rank_zero_only
    def log_updates(self, steps: Sequence[int], times: Sequence[float], columns: Mapping[str, Sequence[Any]]) -> None:
        """Log n updates, each counted from 0, with the time of each in seconds and the n values of each tag."""
        for step, wall_time, *values in zip(steps, times, *columns.values(), strict=True):
            row = {tag: value for tag, value in zip(columns, values) if value is not None}
            self._rows.setdefault(step, {}).update({"time": wall_time, **row})
        self._flush_if_due()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log `metrics` in the row of `step`; Lightning's own `epoch` is left out."""
        if step is None:
            raise ValueError(f"log_metrics({list(metrics)}) has no step: pass the number of the update.")
        if kept := {tag: value for tag, value in metrics.items() if tag not in ("epoch", *KEYS)}:
            self._rows.setdefault(step, {}).update(kept)
        self._flush_if_due()

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: `config.yaml` has them."""

    @rank_zero_only
    def restart(self, step: int) -> None:
        """Drop the rows from `step` on, those of earlier processes too."""
        self._rows = {t: row for t, row in self._rows.items() if t < step}
        self._take_over(step)

    @property
    def save_dir(self) -> str:
        """The folder of the table."""
        return str(self._path.parent)

    @rank_zero_only
    def save(self) -> None:
        """Write all rows."""
        self._write(sorted(self._rows))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write all rows."""
        self.save()

    @rank_zero_only
    def end(self, status: str) -> None:
        """Write all rows."""
        self.save()

    def abandon(self) -> None:
        """Drop what waits."""
        self._rows = {}

    def _flush_if_due(self) -> None:
        """Write the rows but the last one, to which the scores of a validation may still come."""
        if time.monotonic() - self._flushed >= self._flush_seconds or len(self._rows) > LONGEST:
            self._write(sorted(self._rows)[:-1])

    def _write(self, steps: list[int]) -> None:
        self._flushed = time.monotonic()
        if not steps:
            return
        if self._columns is None:
            self._take_over()
        tags = dict.fromkeys(tag for step in steps for tag in self._rows[step])
        new = [tag for tag in tags if tag not in (self._columns or KEYS)]
        if new or steps[0] < self._last:
            self._rewrite(steps, new)
        self._append([step for step in steps if step in self._rows])

    def _append(self, steps: list[int]) -> None:
        """Write rows at the end of the file, the last one anew where it has got more values."""
        with self._path.open("r+b") as file:
            if steps and steps[0] == self._last:
                self._rows[self._last] = self._last_row | self._rows[self._last]
                file.truncate(self._last_at)
            at = file.seek(0, io.SEEK_END)
            lines = [self._line(step, self._rows[step]) for step in steps]
            file.write(b"".join(lines))
        for step, line in zip(steps, lines):
            self._last, self._last_at, self._last_row = step, at, self._rows.pop(step)
            at += len(line)

    def _rewrite(self, steps: list[int], new: list[str]) -> None:
        """Write the file anew, with more columns, and with what came late for rows in it."""
        lines, commas = self._complete_rows(self._columns or KEYS), b"," * len(new)
        self._columns = [*(self._columns or KEYS), *new]
        late = [step for step in steps if step < self._last]
        with replaced(self._path) as temporary, temporary.open("wb") as file:
            file.write(_header(self._columns))
            for step, line in lines:
                while late and late[0] < step:
                    file.write(self._line(late[0], self._rows.pop(late.pop(0))))
                if late and late[0] == step:
                    file.write(self._line(step, self._parsed(line) | self._rows.pop(late.pop(0))))
                else:
                    file.write(line[:-1] + commas + b"\n")
        self._take_over()

    def _line(self, step: int, row: Row) -> bytes:
        assert self._columns is not None
        row = {"time": time.time(), **row}
        return (",".join([str(step), *(_text(row.get(tag)) for tag in self._columns[1:])]) + "\n").encode()

    def _parsed(self, line: bytes) -> Row:
        assert self._columns is not None
        cells = zip(self._columns[1:], line.decode().rstrip("\n").split(",")[1:])
        return {tag: float(cell) for tag, cell in cells if cell}

    def _complete_rows(self, columns: list[str]) -> Iterator[tuple[int, bytes]]:
        """The complete rows of the file, which has these columns, with their steps."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(len(_header(columns)))
            for line in file:
                number = line.partition(b",")[0]
                if not line.endswith(b"\n") or not number.isdigit():
                    return  # a process was killed here
                yield int(number), line

    def _take_over(self, before: float = float("inf")) -> None:
        """Go on with the rows of the file below `before`; later ones, and a row that is not complete, are cut off."""
        self._columns, self._last, self._last_row = None, -1, {}
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8", newline="") as text:
            self._columns = next(csv.reader(text), [])
        if self._columns[:2] != KEYS:
            raise ConfigError(f"{self._path} is no log of a run: move it, because the run writes this file.")
        end, final = len(_header(self._columns)), b""
        for step, line in self._complete_rows(self._columns):
            if step >= before:
                break
            self._last, self._last_at, final = step, end, line
            end += len(line)
        self._last_row = self._parsed(final)
        if self._path.stat().st_size > end:
            with self._path.open("r+b") as file:
                file.truncate(end)


def _header(columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(columns)
    return text.getvalue().encode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    value = value.item() if hasattr(value, "item") else value
    return repr(int(value) if isinstance(value, bool | int) else float(value))
