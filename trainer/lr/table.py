"""The user's own curve: from a file, or from a function."""

import csv
import json
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.lr.bounds import ConfigError, integer, number
from trainer.lr.horizon import Horizon
from trainer.lr.schedule import SHAPES, Schedule, annotate
from trainer.lr.stairs import HIGHEST, joined

INTERPOLATIONS = ("constant", "linear")
SHARE = "it is a share of the peak learning rate, from 0 on."
FORM = "give a .csv file with the header t,value or a .json file with [[0, 1.0], [100, 0.1]]."


def table(horizon: Horizon, *, path: str, interpolation: str = "constant") -> Schedule:
    """m(t) = v_i for t_i ≤ t < t_{i+1}, or on a straight line between the points (t_i, v_i): a table from a file.

    `path` is a CSV file with the header t,value, or a JSON file with a list of pairs. t counts the updates of the
    schedule from 0, and the values are shares of the peak. After the last point its value is held.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     print("[[0, 1.0], [4, 0.5]]", file=file, flush=True)
    ...     steps, slope = (table(Horizon(9, 1), path=file.name, interpolation=way) for way in ("constant", "linear"))
    >>> [steps(t) for t in (0, 2, 4, 99)], [slope(t) for t in (0, 2, 4, 99)]
    ([1.0, 1.0, 0.5, 0.5], [1.0, 0.75, 0.5, 0.5])
    """
    if interpolation not in INTERPOLATIONS:
        raise ConfigError(f"interpolation={interpolation!r} is not known: choose one of {', '.join(INTERPOLATIONS)}.")
    points = _points(horizon, path)
    times, values, last = [time for time, _ in points], [value for _, value in points], horizon.left - 1
    if interpolation == "linear":
        return annotate(joined(points, SHAPES["linear"], horizon.left), knots=times[1:])
    return annotate(lambda t: values[bisect_right(times, min(t, last)) - 1], jumps=times[1:])


def function(horizon: Horizon, *, of: Callable[[int], float]) -> Schedule:
    """m(t) = of(t), and past the end of(T - 1): your own function of the update t, as a share of the peak.

    It must depend on t alone: it is called for any update in any order.

    >>> [function(Horizon(10, 1), of=lambda t: 1 / (1 + t))(t) for t in (0, 1, 9, 99)]
    [1.0, 0.5, 0.1, 0.1]
    """
    if not callable(of):
        raise ConfigError(f"of={of!r} cannot be called: give a function of the update t.")
    last = int(horizon.left) - 1

    def factor(t: int) -> float:
        t = min(int(t), last)
        return number(f"of({t})", of(t), SHARE, 0.0, HIGHEST)

    return factor


def _points(horizon: Horizon, path: str) -> list[tuple[int, float]]:
    points: list[tuple[int, float]] = []
    for i, row in enumerate(_rows_of(path), start=1):
        if not isinstance(row, list) or len(row) != 2:
            raise ConfigError(f"path={path}: row {i} is {_short(row)}, not a pair of t and value: {FORM}")
        name = f"path={path}: in row {i}, t"
        time = horizon.updates(integer(name, row[0], "it counts the updates from 0 on.", 0, 10**15), name)
        if time <= points[-1][0] if points else time:
            raise ConfigError(
                f"{name}={row[0]} is out of order: the first t is 0, and each t is larger than the one before."
            )
        points.append((time, number(f"path={path}: in row {i}, value", row[1], SHARE, 0.0, HIGHEST)))
    if not points:
        raise ConfigError(f"path={path} has no rows: {FORM}")
    return points


def _rows_of(path: str) -> list[Any]:
    """The rows of a file, not yet checked."""
    if not isinstance(path, str) or Path(path).suffix.lower() not in (".csv", ".json"):
        raise ConfigError(f"path={path!r} is not a table: {FORM}")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        rows = json.loads(text) if path.lower().endswith(".json") else _csv(text)
    except OSError as error:
        raise ConfigError(f"path={path} cannot be read: {error.strerror}. Give the path of a table.") from None
    except (ValueError, RecursionError, csv.Error) as error:
        raise ConfigError(f"path={path} is not a table, {_short(error)}: {FORM}") from None
    if not isinstance(rows, list):
        raise ConfigError(f"path={path} is not a list of pairs: {FORM}")
    return rows


def _csv(text: str) -> list[list[object]]:
    lines = [row for row in csv.reader(text.splitlines(), strict=True) if row]
    if not lines or [name.strip() for name in lines[0]] != ["t", "value"]:
        raise ValueError("its first line is not t,value")
    return [[_cell(kind, cell) for kind, cell in zip((int, float, str, str), row)] for row in lines[1:]]


def _cell(kind: Callable[[str], object], text: str) -> object:
    """The value of a cell; its text where it is not of this kind."""
    try:
        return kind(text)
    except ValueError:
        return _short(text)


def _short(value: object) -> str:
    """`value` as one line of at most 80 characters."""
    return " ".join(str(value).split())[:80]
