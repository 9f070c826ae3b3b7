"""The metric over the learning rate and another key, as a Plotly figure."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trainer.tools.report.heats import Heat
from trainer.tools.report.plots import PALE, Figure, escaped, figure
from trainer.tools.report.study import Study
from trainer.tools.report.views import scaled_log

Place = Callable[[float], float]


def heat(study: Study, told: Heat) -> Figure:
    """A heat map of a grid, or points where the settings make none."""
    place: Place = math.log10 if told.log else float
    data = [_cells(study, told, place) if told.grid else _points(study, told, place)]
    if told.bad:
        missed = {
            "mode": "text",
            "text": ["✕"] * len(told.bad),
            "hovertemplate": "failed, pruned or not finite<extra></extra>",
        }
        data.append({**missed, **_at(sorted(told.bad), place)})
    for name, points, dash in (("linear rule", told.linear, "solid"), ("√κ rule", told.sqrt, "dash")):
        if points:
            line = {"dash": dash, "width": 2.5, "color": "rgba(155,29,63,0.75)"}
            rule = {"mode": "lines", "name": name, "showlegend": True, "line": line, "hoverinfo": "name"}
            data.append({**rule, **_at(points, place)})
    for trace in data:
        trace.setdefault("showlegend", False)
    ticked = _ticked if told.grid else _spread
    x, y = ticked(told.xs, math.log10, str(study.lr)), ticked(told.ys, place, told.name)
    return figure(data, max(300, 130 + 56 * min(len(told.ys), 8)), xaxis=x, yaxis=y)


def _cells(study: Study, told: Heat, place: Place) -> dict[str, Any]:
    values = {at: cell.repeats.mean for at, cell in told.cells.items()}
    turn = _turn(values)
    table = [[values.get((x, y)) for x in told.xs] for y in told.ys]
    return {
        "type": "heatmap",
        "x": [math.log10(x) for x in told.xs],
        "y": [place(y) for y in told.ys],
        "z": [[None if v is None else turn(v) for v in row] for row in table],
        "text": [["" if v is None else f"{v:.4g}" for v in row] for row in table],
        "texttemplate": "%{text}",
        "textfont": {"color": "#10222e"},
        "customdata": [[_run(told, x, y) for x in told.xs] for y in told.ys],
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": f"{escaped(study.metric)} %{{text}}<extra></extra>",
        **_colors(study),
    }


def _points(study: Study, told: Heat, place: Place) -> dict[str, Any]:
    values = {at: cell.repeats.mean for at, cell in told.cells.items()}
    turn = _turn(values)
    return {
        "mode": "markers",
        "marker": {"color": [turn(v) for v in values.values()], "size": 11, **_colors(study)},
        "text": [f"{v:.4g}" for v in values.values()],
        "customdata": [_run(told, *at) for at in values],
        "hovertemplate": f"{escaped(study.metric)} %{{text}}<extra></extra>",
        **_at(list(values), place),
    }


def _at(points: Sequence[tuple[float, float]], place: Place) -> dict[str, Any]:
    return {"x": [math.log10(x) for x, _ in points], "y": [place(y) for _, y in points]}


def _turn(values: Mapping[Any, float]) -> Place:
    return math.log10 if scaled_log(list(values.values())) else float


def _colors(study: Study) -> dict[str, Any]:
    scale = list(PALE) if study.sign > 0 else [(1 - end, color) for end, color in PALE[::-1]]
    return {"colorscale": scale, "showscale": False}


def _run(told: Heat, x: float, y: float) -> int | None:
    cell = told.cells.get((x, y))
    return cell.runs[0].number if cell else None


def _ticked(values: Sequence[float], place: Place, title: str) -> dict[str, Any]:
    chosen = values[:: math.ceil(len(values) / 12)]
    ticks = {
        "tickvals": [place(value) for value in chosen],
        "ticktext": [f"{value:.3g}" if value < 1000 else f"{value:.6g}" for value in chosen],
    }
    return {"title": {"text": escaped(title)}, **ticks, "showgrid": False, "zeroline": False, **_range(values, place)}


def _spread(values: Sequence[float], place: Place, title: str) -> dict[str, Any]:
    """Five ticks over drawn values, or those there are."""
    if len(values) <= 5:
        return _ticked(values, place, title)
    low, high = place(values[0]), place(values[-1])
    at = [low + (high - low) * i / 4 for i in range(5)]
    words = [f"{10**x if place is math.log10 else x:.2g}" for x in at]
    ends = [low - (high - low) / 30, high + (high - low) / 30]
    return {"title": {"text": escaped(title)}, "tickvals": at, "ticktext": words, "range": ends, "zeroline": False}


def _range(values: Sequence[float], place: Place) -> dict[str, Any]:
    """Half a cell beyond the ends: the lines of the rules may lead farther."""
    at = [place(value) for value in values]
    if len(at) < 2:
        return {}
    return {"range": [at[0] - (at[1] - at[0]) / 2, at[-1] + (at[-1] - at[-2]) / 2]}
