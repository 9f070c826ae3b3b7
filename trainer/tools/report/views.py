"""What the pictures show, before anything is drawn: the same for the page and for the PNGs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.tools.report.edge import Edge, edge, near
from trainer.tools.report.optimum import Optimum, Undetermined, optimum
from trainer.tools.report.repeats import Repeats, repeats
from trainer.tools.report.runs import Run
from trainer.tools.report.study import Study, numeric
from trainer.tools.report.width import Width, sensitivity

MOST_LINES = 8


@dataclass(frozen=True)
class Line:
    """A metric against the rate under otherwise equal settings: each run, its means over seeds, what they tell.

    `connected` means that a grid of rates was run, so that a line between means has a meaning.
    """

    name: str
    runs: tuple[Run, ...]
    points: tuple[tuple[float, float], ...]
    means: tuple[tuple[float, Repeats], ...]
    failed: tuple[float, ...]
    fit: Optimum | str
    edge: Edge | None
    width: Width | None
    connected: bool
    best_of_several: bool


@dataclass(frozen=True)
class Axis:
    """An axis of parallel coordinates: where in [0, 1] each run passes it, and the words beside it."""

    label: str
    places: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def lines(study: Study, within: float = 0.05) -> list[Line]:
    """The metric against the learning rate, for each setting of the rest; by schedule alone, where those are many."""
    if study.lr is None:
        return []
    rest = [key for key in study.settings if key != study.lr]
    keys = rest if len({study.at(run, rest) for run in study.told}) <= MOST_LINES else rest[:0] + _schedule(study)
    groups: dict[Any, list[Run]] = {}
    for run in study.told:
        groups.setdefault(study.at(run, keys), []).append(run)
    told = [_line(study, study.name(values), runs, within) for values, runs in groups.items()]
    return [line for line in told if line is not None][:MOST_LINES]


def parallel(study: Study) -> list[Axis]:
    """An axis for each key that varies, and one for the metric, of the runs that have it."""
    if len(study.settings) < 2 or len(study.good) < 4:
        return []
    axes = [_axis(study, key) for key in study.settings]
    ranks = sorted(study.cost(run) for run in study.good)
    places = [1 - ranks.index(study.cost(run)) / max(1, len(ranks) - 1) for run in study.good]
    words = [(1.0, f"{study.sign * ranks[0]:.4g}"), (0.5, f"{study.sign * ranks[len(ranks) // 2]:.4g}")]
    return [*axes, Axis(study.metric, tuple(places), (*words, (0.0, f"{study.sign * ranks[-1]:.4g}")))]


def scaled_log(values: Sequence[float]) -> bool:
    """Whether metric values are better seen on a log axis: above zero, and far apart."""
    return min(values) > 0 and max(values) > 8 * min(values)


def _schedule(study: Study) -> list[str]:
    """The key that tells the lines apart where there are too many settings for a line each."""
    names = [key for key in study.choices if key.startswith("schedule")] or study.choices
    return [key for key in names if len(study.levels(key)) <= MOST_LINES][:1]


def _line(study: Study, name: str, runs: list[Run], within: float) -> Line | None:
    key = study.lr
    assert key is not None
    good = [run for run in runs if run.value(study.metric) is not None]
    if not good:
        return None
    bad = [
        float(study.value(run, key))
        for run in runs
        if run.value(study.metric) is None and has(study, run, (key,)) and study.value(run, key) > 0
    ]
    points = [(float(study.value(run, key)), study.cost(run)) for run in good]
    cells: dict[Any, list[Run]] = {}
    for run in good:
        cells.setdefault(study.at(run, study.settings), []).append(run)
    rates = {rate for rate, _ in points}
    several = len({study.at(run, [name for name in study.settings if name != key]) for run in good}) > 1
    grid = not several or len(rates) * 2 <= len(cells)
    costs: dict[float, list[float]] = {}
    for same in cells.values():
        rate, found = float(study.value(same[0], key)), study.costs(same)
        if rate not in costs or sum(found) / len(found) < sum(costs[rate]) / len(costs[rate]):
            costs[rate] = found
    flat = [(rate, cost) for rate, found in sorted(costs.items()) for cost in found]
    close = near(sorted(set(bad)), sorted(rates))
    failed = tuple(rate for rate in close if rate not in rates)
    return Line(
        name=name or "all runs",
        runs=tuple(good),
        points=tuple((rate, study.sign * cost) for rate, cost in points),
        means=tuple((rate, repeats([study.sign * cost for cost in found])) for rate, found in sorted(costs.items())),
        failed=tuple(close),
        fit="other settings vary along it" if several else fitted(flat),
        edge=edge(*_columns(flat), failed) if grid else None,
        width=_width(flat, within, failed) if grid else None,
        connected=grid,
        best_of_several=several,
    )


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [rate for rate, _ in pairs], [cost for _, cost in pairs]


def fitted(pairs: Sequence[tuple[float, float]]) -> Optimum | str:
    try:
        return optimum(*_columns(pairs))
    except Undetermined as reason:
        return str(reason)


def _width(pairs: Sequence[tuple[float, float]], within: float, failed: Sequence[float]) -> Width | None:
    try:
        return sensitivity(*_columns(pairs), within, failed)
    except Undetermined:
        return None


def has(study: Study, run: Run, keys: Sequence[str]) -> bool:
    return all(numeric(study.value(run, key)) for key in keys)


def _axis(study: Study, key: str) -> Axis:
    levels = study.levels(key, study.good)
    if study.numeric(key) and len(levels) > 1:
        scale = math.log10 if study.log(key) else float
        low, high = scale(levels[0]), scale(levels[-1])
        places = {value: (scale(value) - low) / (high - low) for value in levels}
    else:
        places = {value: i / max(1, len(levels) - 1) for i, value in enumerate(levels)}
    every = max(1, math.ceil(len(levels) / 8))
    ticks = tuple(
        (places[value], f"{value:.3g}" if isinstance(value, float) else str(value)[:18]) for value in levels[::every]
    )
    return Axis(study.labels[key], tuple(places[study.value(run, key)] for run in study.good), ticks)
