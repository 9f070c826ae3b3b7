"""The metric against the learning rate, as a Plotly figure."""

import math
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from trainer.tools.plan.picture import COLORS
from trainer.tools.report.optimum import Optimum
from trainer.tools.report.plots import Figure, escaped, figure
from trainer.tools.report.study import Study
from trainer.tools.report.views import Line, scaled_log


def rates(study: Study, lines: Sequence[Line]) -> Figure:
    """Metric against rate: each run a point, means with their spread, the fitted parabola where there is one."""
    data: list[Any] = []
    for line, color in zip(lines, cycle(COLORS)):
        data += _rate_line(study, line, color, many=len(lines) > 1)
    values = [value for line in lines for _, value in line.points]
    bottom, top = min(values), max(values)
    failed = [(rate, color) for line, color in zip(lines, cycle(COLORS)) for rate in line.failed]
    if failed:
        data.append(
            {
                "x": [rate for rate, _ in failed],
                "y": [top if study.sign > 0 else bottom] * len(failed),
                "mode": "markers",
                "marker": {
                    "symbol": "x-thin-open",
                    "size": 10,
                    "color": [color for _, color in failed],
                    "line": {"width": 2},
                },
                "name": "no value",
                "hovertemplate": "%{x:.4g}: failed, pruned or not finite<extra></extra>",
            }
        )
    y = {"title": {"text": escaped(study.metric)}, "type": "log" if scaled_log(values) else "linear"}
    x = {"title": {"text": escaped(str(study.lr))}, "type": "log", **_ticks(lines)}
    return figure(data, 440, xaxis=x, yaxis=y)


def _rate_line(study: Study, line: Line, color: str, many: bool) -> list[Any]:
    name = escaped(line.name)
    of_runs = {
        "x": [rate for rate, _ in line.points],
        "y": [value for _, value in line.points],
        "mode": "markers",
        "legendgroup": name,
        "marker": {"color": color, "size": 6, "opacity": 0.55},
        "name": name,
        "showlegend": not line.connected and many,
        "customdata": [run.number for run in line.runs],
        "text": [escaped(run.name) for run in line.runs],
        "hovertemplate": f"{escaped(study.metric)} %{{y:.5g}}<br>lr %{{x:.4g}}, run %{{text}}<extra>{name}</extra>",
    }
    means = [_means(line, color, name, many)] if line.connected else []
    fit = [_parabola(study, line.fit, color, name)] if isinstance(line.fit, Optimum) else []
    return [*means, of_runs, *fit]


def _means(line: Line, color: str, name: str, many: bool) -> dict[str, Any]:
    spread = [found.std or 0.0 for _, found in line.means]
    bars = {"type": "data", "array": spread, "thickness": 1.2, "width": 4, "color": color, "visible": any(spread)}
    return {
        "x": [rate for rate, _ in line.means],
        "y": [found.mean for _, found in line.means],
        "mode": "lines+markers",
        "line": {"color": color, "width": 2},
        "marker": {"size": 8},
        "name": name,
        "legendgroup": name,
        "showlegend": many,
        "hoverinfo": "skip",
        "error_y": bars,
    }


def _parabola(study: Study, fit: Optimum, color: str, name: str) -> dict[str, Any]:
    low, high = (math.log10(rate) for rate in fit.window)
    grid = [10 ** (low + (high - low) * i / 40) for i in range(41)]
    line = {"color": color, "dash": "dot", "width": 1.4}
    values = [study.sign * fit.cost(rate) for rate in grid]
    quiet = {"mode": "lines", "legendgroup": name, "showlegend": False, "hoverinfo": "skip"}
    return {"x": grid, "y": values, "line": line, **quiet}


def _ticks(lines: Sequence[Line]) -> dict[str, Any]:
    """The rates of the grid, or whole decades where they are many."""
    points = {rate for line in lines for rate in (*(rate for rate, _ in line.points), *line.failed)}
    if len(points) <= 10:
        return {"tickvals": sorted(points), "ticktext": [f"{rate:.3g}" for rate in sorted(points)]}
    wide = max(points) > 300 * min(points)
    return {"exponentformat": "power", "dtick": 1 if wide else "D1"}
