"""In what two runs differ: the keys of their configs, their scores, and their curves by update."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.cli.streams import short_numbers
from trainer.log.scalars import Points, scalars
from trainer.resume.changes import differences
from trainer.tools.plan.tables import align
from trainer.tools.run_folders import is_bookkeeping
from trainer.tools.runs.conditions import as_text
from trainer.tools.runs.listed import ListedRun, flat_values, one_run
from trainer.tools.runs.table import cut, one_line

SHOWN = 5
"""How many updates of a curve are printed."""
LONGEST = 60
"""The most letters of a value."""

Curve = dict[int, float]
"""The value of each update that was logged."""


def diff(first: Path, second: Path) -> list[str]:
    """The lines about two runs."""
    runs = [one_run(first), one_run(second)]
    heads = [("run", "state", "updates")]
    heads += [(one_line(run.name), run.state, "" if run.updates is None else str(run.updates)) for run in runs]
    return [
        *align(heads, words=2),
        "",
        *format_configs(*runs),
        *format_changes(*runs),
        "",
        *format_scores(*runs),
        "",
        *format_curves(*runs),
    ]


def format_configs(a: ListedRun, b: ListedRun) -> list[str]:
    """A row for each key in which the configs differ."""
    planned = a.planned_tree and b.planned_tree
    one, other = (flat_values(run.planned_tree if planned else run.written_tree) for run in (a, b))
    if not one or not other:
        return [f"configs: {one_line((b if one else a).name)} has none that can be read"]
    found = [key for key in differences(one, other) if not is_bookkeeping(key) and not key.endswith("_partial_")]
    if not found:
        return ["configs: they are the same"]
    rows = [(one_line(key), *short_numbers([_value(one, key), _value(other, key)])) for key in found]
    return align([("config", "first", "second"), *rows], words=3)


def format_changes(a: ListedRun, b: ListedRun) -> list[str]:
    """How resumes have changed the runs, where that differs."""
    found = [", ".join(run.changes) or "no change" for run in (a, b)]
    return [] if found[0] == found[1] else [one_line(f"resumed: first {found[0]}; second {found[1]}")]


def format_scores(a: ListedRun, b: ListedRun) -> list[str]:
    """A row for each metric that both runs have."""
    both = [(name, x, y) for name, x in a.scores.items() if x is not None and (y := b.scores.get(name)) is not None]
    if not both:
        return ["scores: they have no metric in common"]
    rows = [(one_line(name), f"{x:.6g}", f"{y:.6g}", f"{y - x:+.3g}") for name, x, y in both]
    return align([("score", "first", "second", "difference"), *rows], words=1)


def format_curves(a: ListedRun, b: ListedRun) -> list[str]:
    """The rate of the first group, the training loss and the watched metric of both at a few updates."""
    watched = [name for name in dict.fromkeys([a.watched, b.watched]) if name.startswith("val/")]
    logs = [scalars(run.folder, ("lr/", "train/loss", *watched)) for run in (a, b)]
    lines = _format_pair("learning rate", *(_curve(_first_rate(log)) for log in logs))
    for tag in ("train/loss", *watched):
        lines += _format_pair(tag, *(_curve(log.get(tag, [])) for log in logs))
    return lines


def _format_pair(name: str, one: Curve, other: Curve) -> list[str]:
    common = sorted(one.keys() & other.keys())
    if not common:
        missing = " and ".join(word for word, curve in (("first", one), ("second", other)) if not curve)
        why = f"the {missing} has no log of it" if missing else "no update in common"
        return [f"{one_line(name)}: {why}"]
    apart = next((t for t in common if not _equal(one[t], other[t])), None)
    seen = f"the same at all {len(common)} updates" if apart is None else f"differs from update {apart} on"
    updates = _spread(common)
    rows = [("update", *map(str, updates))]
    rows += [(word, *(f"{curve[t]:.5g}" for t in updates)) for word, curve in (("first", one), ("second", other))]
    return [f"{one_line(name)}: {seen}", *(f"    {line}" for line in align(rows, words=1))]


def _spread(updates: Sequence[int]) -> list[int]:
    """A few of them, evenly, with both ends."""
    return sorted({updates[round(i * (len(updates) - 1) / (SHOWN - 1))] for i in range(SHOWN)})


def _curve(points: Points) -> Curve:
    return dict(points)


def _first_rate(log: Mapping[str, Points]) -> Points:
    return next((points for tag, points in log.items() if tag.startswith("lr/")), [])


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _value(config: Mapping[str, Any], key: str) -> str:
    return cut(one_line(as_text(config[key])), LONGEST) if key in config else "(not set)"
