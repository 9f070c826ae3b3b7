"""Lines of the table of all measurements: what Cadence takes in each round beside its peer, and the target."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypedDict

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.report import machine

UNITS = (("s", 1.0), ("ms", 1e3), ("µs", 1e6), ("ns", 1e9))


class Line(TypedDict):
    """Seconds of Cadence and of its peer, one of each for a round, and the target.

    A target «<= 1.15» limits the time of Cadence as a multiple of that of the peer. «>= 0.95» limits its speed.
    """

    what: str
    ours: list[float]
    peer: str
    theirs: list[float]
    target: str


def line(what: str, ours: Sequence[float], peer: str, theirs: Sequence[float], target: str = "") -> Line:
    """A line of the table."""
    return Line(what=what, ours=list(ours), peer=peer, theirs=list(theirs), target=target)


def ratios(one: Line) -> list[float]:
    """The ratio of each round: of times, or of speeds where the target is a least one."""
    pairs = zip(one["ours"], one["theirs"], strict=True)
    faster = one["target"].startswith(">=")
    return [theirs / ours if faster else ours / theirs for ours, theirs in pairs]


def is_met(one: Line) -> bool | None:
    """Whether the median ratio meets the target; None where there is no target."""
    if not one["target"]:
        return None
    relation, number = one["target"].split()
    found = round(median(ratios(one)), 2)
    return found >= float(number) if relation == ">=" else found <= float(number)


def cells(one: Line) -> list[str]:
    """What, both times with their spread, the peer, the ratio with its spread, the target, and whether it is met."""
    found = ratios(one)
    spread = f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
    verdict = {True: "met", False: "missed", None: ""}[is_met(one)]
    target = one["target"].replace("<=", "≤").replace(">=", "≥")
    return [one["what"], _time(one["ours"]), one["peer"], _time(one["theirs"]), spread, target, verdict]


def show_lines(lines: Sequence[Line], note: str = "") -> None:
    """Print the table, and the load of the machine."""
    table = Table(box=SIMPLE)
    for title in HEAD:
        table.add_column(title, no_wrap=True)
    for one in lines:
        table.add_row(*cells(one))
    console, where = Console(highlight=False, soft_wrap=True, width=220), machine(1)
    console.print(table)
    console.print(f"{where['cores']} cores of {where['processor']}; load {where['load']:.1f}. {note}", markup=False)


HEAD = ("what", "Cadence, median (min to max)", "peer", "its time", "ratio of a round", "target", "")


def markdown(lines: Sequence[Line]) -> str:
    """The table for a page."""
    rows = [HEAD, ["---"] * len(HEAD), *map(cells, lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def keep(path: Path | None, report: dict[str, Any]) -> None:
    """Write a report as JSON, where a file is named."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(path)


def _time(seconds: Sequence[float]) -> str:
    unit, factor = next(((name, by) for name, by in UNITS if median(seconds) * by >= 1), UNITS[-1])
    low, middle, high = (f"{value * factor:.3g}" for value in (min(seconds), median(seconds), max(seconds)))
    return f"{middle} {unit} ({low} to {high})"
