"""The metric over the learning rate and another key, as a Plotly figure."""

import math
from collections.abc import Sequence
from typing import Any

from scripts.reports.heats import Heat
from scripts.reports.plots import PALE, Figure, figure
from scripts.reports.study import Study, shown
from scripts.reports.views import scaled_log


def heat(study: Study, told: Heat) -> Figure:
    """A heat map of a grid, or points where the settings make none."""
    logs = study.log(told.key)
    place = math.log10 if logs else float
    values = {at: cell.repeats.mean for at, cell in told.cells.items()}
    turn = math.log10 if scaled_log(list(values.values())) else float
    colors = {"colorscale": list(PALE) if study.sign > 0 else [(1 - a, b) for a, b in PALE[::-1]], "showscale": False}
    data: list[Any] = []
    if told.grid:
        table = [[values.get((x, y)) for x in told.xs] for y in told.ys]
        data.append(
            {
                "type": "heatmap",
                "x": [math.log10(x) for x in told.xs],
                "y": [place(y) for y in told.ys],
                "z": [[None if v is None else turn(v) for v in row] for row in table],
                **colors,
                "text": [["" if v is None else f"{v:.4g}" for v in row] for row in table],
                "texttemplate": "%{text}",
                "customdata": [[_run(told, x, y) for x in told.xs] for y in told.ys],
                "xgap": 2,
                "ygap": 2,
                "hovertemplate": f"{study.metric} %{{text}}<extra></extra>",
                "textfont": {"color": "#10222e"},
            }
        )
    else:
        data.append(
            {
                "mode": "markers",
                "x": [math.log10(x) for x, _ in values],
                "y": [place(y) for _, y in values],
                "marker": {"color": [turn(v) for v in values.values()], "size": 11, **colors},
                "text": [f"{v:.4g}" for v in values.values()],
                "customdata": [_run(told, *at) for at in values],
                "hovertemplate": f"{study.metric} %{{text}}<extra></extra>",
            }
        )
    bad = sorted(told.bad)
    if bad:
        data.append(
            {
                "mode": "text",
                "x": [math.log10(x) for x, _ in bad],
                "y": [place(y) for _, y in bad],
                "text": ["✕"] * len(bad),
                "hovertemplate": "failed or not finite<extra></extra>",
            }
        )
    for name, points, dash in (("linear rule", told.linear, "solid"), ("√κ rule", told.sqrt, "dash")):
        if points:
            data.append(
                {
                    "x": [math.log10(x) for x, _ in points],
                    "y": [place(y) for _, y in points],
                    "mode": "lines",
                    "name": name,
                    "showlegend": True,
                    "line": {"dash": dash, "width": 3, "color": "#9b1d3f"},
                    "hoverinfo": "name",
                }
            )
    for trace in data:
        trace.setdefault("showlegend", False)
    x, y = _ticked(told.xs, math.log10, str(study.lr)), _ticked(told.ys, place, told.key)
    return figure(data, max(300, 130 + 56 * min(len(told.ys), 8)), xaxis=x, yaxis=y)


def _run(told: Heat, x: float, y: float) -> int | None:
    cell = told.cells.get((x, y))
    return cell.runs[0].number if cell else None


def _ticked(values: Sequence[float], place: Any, title: str) -> dict[str, Any]:
    chosen = values[:: math.ceil(len(values) / 12)]
    ticks = {"tickvals": [place(value) for value in chosen], "ticktext": [shown(float(value)) for value in chosen]}
    return {"title": {"text": title}, **ticks, "showgrid": False, "zeroline": False, **_range(values, place)}


def _range(values: Sequence[float], place: Any) -> dict[str, Any]:
    """Half a cell beyond the ends: the lines of the rules may lead farther."""
    at = [place(value) for value in values]
    if len(at) < 2:
        return {}
    return {"range": [at[0] - (at[1] - at[0]) / 2, at[-1] + (at[-1] - at[-2]) / 2]}
