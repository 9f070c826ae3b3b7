"""A list of runs as a table for a terminal, as JSON and as CSV."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from trainer.cli.override import key_of
from trainer.cli.streams import short_numbers, shown
from trainer.tools.plan.tables import align
from trainer.tools.run_folders import finite, is_bookkeeping
from trainer.tools.runs.listed import ListedRun
from trainer.tools.writable import plain_cell

CUT = " ..."
LEAST = 30
"""The fewest letters of the settings on a terminal that leave room for the disk space and the time."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def format_runs(runs: Sequence[ListedRun], asked: Sequence[str], total: int, width: int | None = None) -> list[str]:
    """A line for each run, and one about all of them; `asked` are metrics to show beside the one that most runs watch.

    `total`: how many runs there are, with those that are left out. `width`: of the terminal; None: lines are not cut.
    """
    watched = [name for name, _ in Counter(run.watched for run in runs if run.watched).most_common(1)]
    metrics = list(dict.fromkeys([*watched, *asked]))
    settings = distinct_settings(runs)
    rows = [("run", "state", *map(one_line, metrics), "updates", "time", "disk", "settings")]
    for run, words in zip(runs, settings):
        scores = ("" if (value := run.scores.get(name)) is None else f"{value:.5g}" for name in metrics)
        why = [f"resumed: {', '.join(run.changes)}"] if run.changes else []
        why += [run.error] if run.error else []
        last = one_line(": ".join([*([words] if words else []), *why]))
        rows.append((one_line(run.name), run.state, *scores, *_numbers(run), last))
    lines = align(_narrowed(rows, width), words=2, last=True) if runs else []
    return [*(cut(line, width) for line in lines), *([""] if runs else []), _summary(runs, total)]


def _narrowed(rows: list[tuple[str, ...]], width: int | None) -> list[tuple[str, ...]]:
    """The rows without the disk space, and then the time, where the settings would not fit the terminal."""
    for name in ("disk", "time"):
        needed = sum(2 + max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1))
        if width is not None and needed + LEAST > width:
            at = rows[0].index(name)
            rows = [row[:at] + row[at + 1 :] for row in rows]
    return rows


def _numbers(run: ListedRun) -> tuple[str, str, str]:
    made, total = run.updates, run.total
    updates = "" if made is None else f"{made}" if total in (made, None) else f"{made}/{total}"
    return updates, format_seconds(run.seconds), format_bytes(run.size)


def _summary(runs: Sequence[ListedRun], total: int) -> str:
    states = ", ".join(f"{count} {state}" for state, count in Counter(run.state for run in runs).most_common())
    listed = count_runs(total) if len(runs) == total else f"{len(runs)} of {count_runs(total)}"
    return f"{listed}{': ' if states else ''}{states}; {format_bytes(sum(run.size for run in runs))} on the disk"


def distinct_settings(runs: Sequence[ListedRun]) -> list[str]:
    """The overrides of each run that it does not share with all the others, those of few runs first.

    They are without its name and place.
    """
    having = Counter(word for run in runs for word in set(run.overrides) if not is_bookkeeping(key_of(word)))
    distinct = {word: count for word, count in having.items() if count < len(runs) or len(runs) == 1}
    words = [" ".join(sorted(filter(distinct.__contains__, run.overrides), key=having.__getitem__)) for run in runs]
    return short_numbers(words)


def as_json(runs: Sequence[ListedRun]) -> str:
    """The runs as a list of objects, in ASCII."""
    return json.dumps([record_of(run) for run in runs], indent=2)


def record_of(run: ListedRun) -> dict[str, Any]:
    """What is listed of a run, as plain values."""
    best = run.result.get("best")
    update = finite(best.get("update")) if isinstance(best, dict) else None
    return {
        **_facts_of(run),
        "metrics": run.scores,
        "watched": run.watched or None,
        "best_update": None if update is None else int(update),
        "overrides": list(run.overrides),
    }


def _facts_of(run: ListedRun) -> dict[str, Any]:
    return {
        "run": run.name,
        "state": run.state,
        "error": run.error,
        "updates": run.updates,
        "total_updates": run.total,
        "seconds": run.seconds,
        "bytes": run.size,
        "written": run.written,
        "resumed": ", ".join(run.changes) or None,
    }


def as_csv(runs: Sequence[ListedRun]) -> str:
    """A row for each run: its metrics, and its overrides as typed. No cell is a formula or has several lines."""
    metrics = sorted({name for run in runs for name in run.scores})
    keys = dict.fromkeys(key for run in runs for key in run.typed if not is_bookkeeping(key))
    facts = [_facts_of(run) for run in runs]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = [*(facts[0] if facts else ("run", "state")), *metrics, *keys]
    writer.writerow(map(_cell, head))
    for run, known in zip(runs, facts):
        typed = ["removed" if key in run.typed and run.typed[key] is None else run.typed.get(key) for key in keys]
        writer.writerow(map(_cell, [*known.values(), *map(run.scores.get, metrics), *typed]))
    return text.getvalue().rstrip("\n")


def _cell(value: Any) -> Any:
    return plain_cell(one_line(value)) if isinstance(value, str) else value


def one_line(text: str) -> str:
    """A text that others may have written, in one line and without what steers a terminal."""
    return shown(" ".join(text.split()))


def cut(line: str, width: int | None) -> str:
    """A line that fits the terminal."""
    return line if width is None or len(line) <= width else f"{line[: max(0, width - len(CUT))]}{CUT}"


def count_runs(count: int) -> str:
    """1 run, 2 runs."""
    return f"{count} run{'' if count == 1 else 's'}"


def format_seconds(seconds: float | None) -> str:
    """A time to read.

    >>> [format_seconds(value) for value in (None, 1.26, 95.0, 4000.0, 200000.0)]
    ['', '1.3 s', '95 s', '67 min', '55.6 h']
    """
    if seconds is None:
        return ""
    steps: tuple[tuple[float, Callable[[float], str]], ...] = (
        (9.95, lambda x: f"{x:.1f} s"),
        (600, lambda x: f"{x:.0f} s"),
        (36000, lambda x: f"{x / 60:.0f} min"),
    )
    return next((text(seconds) for limit, text in steps if seconds < limit), f"{seconds / 3600:.1f} h")


def format_bytes(size: float) -> str:
    """A size to read.

    >>> [format_bytes(value) for value in (0, 4096, 3.1e6, 5e13)]
    ['0 B', '4 KiB', '2.96 MiB', '45.5 TiB']
    """
    for unit in UNITS[:-1]:
        if size < 1024:
            return f"{size:.3g} {unit}" if size < 999.5 else f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.3g} {UNITS[-1]}"
