"""The sections of the report, and the figures in them as Plotly has them: dicts of data and layout.

`page` shows the figures with Plotly, `png` draws them with matplotlib. No text in them is escaped.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trainer.cli.extras import needed
from trainer.tools.drawing import COLORS, GREY, series_color, suits_log
from trainer.tools.report.comparison import Importance, Repeats
from trainer.tools.report.optimum import Optimum
from trainer.tools.report.rates import is_geometric
from trainer.tools.report.response import HeatMap, Point, RateCurve
from trainer.tools.report.runs import Points, Run
from trainer.tools.report.study import Study

Figure = dict[str, Any]
Trace = dict[str, Any]
Panel = tuple[dict[str, Any], Sequence[Trace], str]
"""The y axis, the traces and the title of one of several panels below each other."""
Ticks = Sequence[tuple[float, str]]

SCALE = ((0.0, "#2a6f97"), (0.35, "#5fa8a0"), (0.65, "#e9c46a"), (1.0, "#e07a1f"))
"""Colours of lines, from the best, 0, to the worst, 1."""
PALE = ((0.0, "#8fc1d9"), (0.35, "#b5d9cb"), (0.65, "#f3e0a6"), (1.0, "#efb08a"))
"""The same behind text."""
RULE, INK = "#9b1d3f", "#10222e"
GAP = 0.06
"""The share of the height between two panels."""
CLOSE, FEW = 0.035, 0.2
"""Ticks nearer to each other than this share of the axis would overlap; the least share where values are no grid."""
BESIDE = 0.1
"""A fitted parabola is drawn so far below and above the runs of its curve, as a share of their range."""
LETTERS = 24
"""The most letters of a value beside an axis."""
FAILED = "failed, pruned or not finite"


class Cell(NamedTuple):
    """A cell of a table. `role` is empty, `n` for a number, `soft`, `good`, `bad` or `wide`."""

    text: str
    role: str = ""


Row = Sequence[Cell]


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading, a note, and a figure, a table or both.

    The first row of the table is its head. The picture of the figure is `name`.png.
    """

    name: str
    title: str
    note: str = ""
    figure: Figure | None = None
    table: Sequence[Row] = ()


def figure(x: Mapping[str, Any], panels: Sequence[Panel], height: int, legend: bool = False) -> Figure:
    """Panels below each other over one x axis. The first trace of each name is in the legend."""
    count = len(panels)
    gap = GAP if count > 1 else 0.0
    layout: dict[str, Any] = {
        "height": height,
        "margin": {"l": 64, "r": 20, "t": 20, "b": 52},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02 + (18 / height if count > 1 else 0), "yanchor": "bottom", "x": 0},
        "showlegend": legend,
        "annotations": [],
        "shapes": [],
        "xaxis": {**x, "anchor": f"y{count}" if count > 1 else "y"},
    }
    data: list[Trace] = []
    named = {None}
    for i, (y, traces, title) in enumerate(panels):
        number, top = str(i + 1) if i else "", 1 - i / count
        layout[f"yaxis{number}"] = {**y, "domain": [max(0.0, top - 1 / count + gap), top]}
        for trace in traces:
            data.append({**trace, "yaxis": f"y{number}", "showlegend": trace.get("name") not in named})
            named.add(trace.get("name"))
        if title:
            layout["annotations"].append(_note(title, "left", 1, f"y{number} domain"))
    return {"data": data, "layout": layout}


def _note(text: str, side: str, y: float, yref: str) -> dict[str, Any]:
    """Grey text above a height, at the left or right side of a panel."""
    at = {"x": 0 if side == "left" else 1, "xref": "paper", "xanchor": side, "y": y, "yref": yref, "yanchor": "bottom"}
    return {**at, "text": text, "showarrow": False, "font": {"size": 12, "color": GREY}}


def axis(title: str = "", log: bool = False, ticks: Ticks = (), **more: Any) -> dict[str, Any]:
    """An axis; without ticks, the renderer chooses them."""
    drawn: dict[str, Any] = {"zeroline": False, "title": {"text": title}, **more}
    if log:
        drawn |= {"type": "log", "exponentformat": "power"}
    if ticks:
        drawn |= {"tickvals": [at for at, _ in ticks], "ticktext": [text for _, text in ticks]}
    return drawn


def add_level(drawn: Figure, yref: str, value: float, text: str) -> None:
    """Add a horizontal line with a word at its right end to a panel."""
    layout = drawn["layout"]
    is_log = layout[yref.replace("y", "yaxis")].get("type") == "log"
    ends = {"x0": 0, "x1": 1, "y0": value, "y1": value}
    line = {"type": "line", "line": {"color": GREY, "width": 1, "dash": "dot"}}
    layout["shapes"].append({**ends, **line, "xref": "paper", "yref": yref})
    layout["annotations"].append(_note(text, "right", math.log10(value) if is_log else value, yref))


def value_axis(title: str, values: Collection[float], log: bool) -> dict[str, Any]:
    """An axis with a tick at each value, where they are few."""
    return axis(title, log, value_ticks(values, math.log10 if log else float) if 0 < len(values) <= 10 else ())


def line_trace(points: Sequence[Point], color: str, width: float = 1.8, dash: str = "solid", **more: Any) -> Trace:
    """A line through the points. A trace without a template for its hover shows nothing there."""
    xs, ys = zip(*points) if points else ((), ())
    line = {"color": color, "width": width, "dash": dash}
    hover = {} if "hovertemplate" in more else {"hoverinfo": "skip"}
    named = {"legendgroup": more["name"]} if "name" in more else {}
    return {"type": "scatter", "x": list(xs), "y": list(ys), "mode": "lines", "line": line, **hover, **named, **more}


def dot_trace(points: Sequence[Point], color: str | Sequence[str], size: float = 6, **more: Any) -> Trace:
    """A dot at each point."""
    return line_trace(points, "", mode="markers", **more) | {"marker": {"color": color, "size": size}}


def mean_line(name: str, means: Sequence[tuple[float, Repeats]], color: str) -> Trace:
    """A line through the means over seeds, with one standard deviation as a bar."""
    trace = line_trace([(x, found.mean) for x, found in means], color, 2.0, name=name, mode="lines+markers")
    trace["marker"] = {"color": color, "size": 8}
    spread = [found.std or 0.0 for _, found in means]
    if any(spread):
        trace["error_y"] = {"type": "data", "array": spread, "thickness": 1.2, "width": 4, "color": color}
    return trace


def run_dots(name: str, runs: Sequence[Run], points: Sequence[Point], color: str, metric: str) -> Trace:
    """A dot for each run; a click opens the run."""
    return dot_trace(
        points,
        color,
        name=name,
        opacity=0.55,
        customdata=[run.number for run in runs],
        text=[run.name for run in runs],
        hovertemplate=f"{metric} %{{y:.5g}} at %{{x:.4g}}, run %{{text}}",
    )


def run_line(name: str, run: Run, points: Sequence[Point], color: str, **more: Any) -> Trace:
    """What a run logged as a line; a click opens the run."""
    few = [(x, float(f"{y:.5g}")) for x, y in points]
    hover = f"%{{y:.5g}} at %{{x:.5g}}, run {run.name}"
    trace = line_trace(few, color, name=name, meta=run.number, hovertemplate=hover, **more)
    if len(points) < 12:
        trace |= {"mode": "lines+markers", "marker": {"color": color, "size": 5}}
    return trace


def crosses(points: Sequence[Point], color: str | Sequence[str], **more: Any) -> Trace:
    """A cross where a run has no value."""
    trace = dot_trace(points, color, 10, **more)
    trace["marker"] |= {"symbol": "x-thin-open", "line": {"width": 2}}
    return trace


def rates_figure(study: Study, curves: Sequence[RateCurve]) -> Figure:
    """Metric against rate: each run a point, the means with their spread, the fitted parabola where there is one."""
    traces = [one for i, curve in enumerate(curves) for one in _rate_traces(study, curve, series_color(i))]
    values = [value for curve in curves for _, value in curve.points]
    worst = max(values, key=lambda value: study.sign * value)
    failed = [(rate, series_color(i)) for i, curve in enumerate(curves) for rate in curve.failed]
    if failed:
        at, colors = [(rate, worst) for rate, _ in failed], [color for _, color in failed]
        traces.append(crosses(at, colors, name="no value", hovertemplate=f"%{{x:.4g}}: {FAILED}"))
    rates = {rate for curve in curves for rate in (*(rate for rate, _ in curve.points), *curve.failed)}
    panel = (axis(study.metric, log=suits_log(values)), traces, "")
    return figure(value_axis(str(study.lr), rates, log=True), [panel], 440, legend=len(curves) > 1)


def _rate_traces(study: Study, curve: RateCurve, color: str) -> list[Trace]:
    traces = [mean_line(curve.name, curve.means, color)] if curve.is_grid else []
    traces.append(run_dots(curve.name, curve.runs, curve.points, color, study.metric))
    if isinstance(fit := curve.fit, Optimum):
        low, high = map(math.log10, fit.window)
        rates = [10 ** (low + (high - low) * i / 40) for i in range(41)]
        parabola = [(rate, study.sign * fit.cost(rate)) for rate in rates]
        traces.append(line_trace(_near_runs(parabola, curve), color, 1.4, "dot", name=curve.name))
    return traces


def _near_runs(parabola: Sequence[Point], curve: RateCurve) -> list[Any]:
    """The parabola with a gap where it is far from all runs, as beside a rate at which training breaks."""
    values = [value for _, value in curve.points]
    margin = BESIDE * (max(values) - min(values))
    low, high = min(values) - margin, max(values) + margin
    return [(rate, value if low <= value <= high else None) for rate, value in parabola]


def heat_figure(study: Study, heat: HeatMap) -> Figure:
    """A heat map of a grid, or coloured points where the settings make none; crosses, and lines of the batch rules."""
    y_of: Callable[[float], float] = math.log10 if is_geometric(heat.ys) else float

    def placed(points: Iterable[Point]) -> list[Point]:
        return [(math.log10(x), y_of(y)) for x, y in points]

    shades = _shades({at: one.repeats.mean for at, one in heat.cells.items()}, study.sign)
    x = _placed_axis(str(study.lr), heat.xs, math.log10, heat.is_grid)
    y = _placed_axis(heat.name, heat.ys, y_of, heat.is_grid)
    hover = f"{study.metric} %{{text}}"
    if heat.is_grid and len(heat.xs) > 1 and len(heat.ys) > 1:
        at = {"x": list(map(math.log10, heat.xs)), "y": list(map(y_of, heat.ys))}
        traces = [{**_cells(heat, shades), **at, "hovertemplate": hover}]
    else:
        numbers = [one.runs[0].number for one in heat.cells.values()]
        texts = [f"{one.repeats.mean:.4g}" for one in heat.cells.values()]
        colors = [blend(shades[at], PALE) for at in heat.cells]
        traces = [dot_trace(placed(heat.cells), colors, 11, customdata=numbers, text=texts, hovertemplate=hover)]
    if heat.failed:
        traces.append(crosses(placed(sorted(heat.failed)), GREY, hovertemplate=FAILED))
    for name, rule, dash in (("linear rule", heat.linear, "solid"), ("√κ rule", heat.sqrt, "dash")):
        if rule:
            traces.append(line_trace(placed(rule), RULE, 2.5, dash, name=name, opacity=0.75))
    rows = min(len(heat.ys), 8) if heat.is_grid else 6
    return figure(x, [(y, traces, "")], max(300, 130 + 56 * rows), legend=bool(heat.linear))


def _cells(heat: HeatMap, shades: Mapping[Point, float]) -> Trace:
    """The cells of a grid, with the mean as their text; a place without a value is empty."""
    rows = [[heat.cells.get((x, y)) for x in heat.xs] for y in heat.ys]
    return {
        "type": "heatmap",
        "z": [[shades.get((x, y)) for x in heat.xs] for y in heat.ys],
        "text": [[f"{one.repeats.mean:.4g}" if one else "" for one in row] for row in rows],
        "customdata": [[one.runs[0].number if one else None for one in row] for row in rows],
        "zmin": 0,
        "zmax": 1,
        "texttemplate": "%{text}",
        "textfont": {"color": INK},
        "xgap": 2,
        "ygap": 2,
        "colorscale": [list(pair) for pair in PALE],
        "showscale": False,
    }


def _shades(values: Mapping[Point, float], sign: int) -> dict[Point, float]:
    """The place of each value between the best, 0, and the worst, 1; in the log where the values are far apart."""
    turn: Callable[[float], float] = math.log10 if suits_log(list(values.values())) else float
    costs = {at: sign * turn(value) for at, value in values.items()}
    low, high = min(costs.values()), max(costs.values())
    return {at: (cost - low) / (high - low) if high > low else 0.0 for at, cost in costs.items()}


def _placed_axis(title: str, values: Sequence[float], place: Callable[[float], float], is_grid: bool) -> dict[str, Any]:
    """An axis in the units of `place`. That of a grid ends half a cell beyond it, wherever the batch rules lead."""
    at = [place(value) for value in values]
    ticks = [(place(value), text) for value, text in value_ticks(values, place, CLOSE if is_grid else FEW)]
    if not is_grid or len(at) < 2:
        return axis(title, ticks=ticks)
    return axis(title, ticks=ticks, range=[at[0] - (at[1] - at[0]) / 2, at[-1] + (at[-1] - at[-2]) / 2])


def value_ticks(values: Iterable[float], place: Callable[[float], float], apart: float = CLOSE) -> Ticks:
    """A tick at each value, without those that are nearer to the one before than a share of the axis."""
    ordered = sorted(values)
    span = place(ordered[-1]) - place(ordered[0])
    shown = _thinned(ordered, place, apart * span)
    return [(value, f"{value:.3g}" if value < 1000 else f"{value:.6g}") for value in shown]


def _thinned(values: Iterable[Any], place: Callable[[Any], float], apart: float) -> list[Any]:
    """The values without those that are nearer than `apart` to the last one kept."""
    kept: list[Any] = []
    for value in values:
        if not kept or place(value) - place(kept[-1]) >= apart:
            kept.append(value)
    return kept


def curves_figure(metric: str, runs: Sequence[tuple[Run, str, Mapping[str, Points]]]) -> Figure:
    """Training loss, validated metric and rate by update, of runs that come with a name and their curves."""
    titles = {"loss": "training loss", "metric": metric.replace("test/", "val/", 1), "lr": "learning rate"}
    panels: list[Panel] = []
    for kind, title in titles.items():
        logged = [(i, run, name, curves[kind]) for i, (run, name, curves) in enumerate(runs) if kind in curves]
        values = [y for *_, points in logged for _, y in points if math.isfinite(y)]
        log = kind != "lr" and bool(values) and suits_log(values)
        y = axis(title, log, rangemode="tozero" if kind == "lr" else "normal")
        traces = [run_line(name, run, points, series_color(i)) for i, run, name, points in logged]
        if traces:
            panels.append((y, traces, ""))
    return figure(axis("update"), panels, 90 + 165 * len(panels), legend=len(runs) > 1)


def parallel_figure(study: Study) -> Figure | None:
    """A line for each run through an axis for each key that varies, and one for the metric; the better the bluer."""
    if len(study.settings) < 2 or len(study.scored) < 4:
        return None
    axes = [*(_parallel_axis(study, key) for key in study.settings), _metric_axis(study)]
    titles = [*(study.labels[key] for key in study.settings), study.metric]
    ranks = axes[-1][0]
    traces = []
    for i in sorted(range(len(study.scored)), key=ranks.__getitem__):
        run, rank = study.scored[i], ranks[i]
        points = [(float(at), places[i]) for at, (places, _) in enumerate(axes)]
        trace = line_trace(points, blend(1 - rank, SCALE), 1.2 + 1.2 * rank, hovertemplate=f"run {run.name}")
        traces.append({**trace, "opacity": 0.35 + 0.6 * rank**2, "meta": run.number})
    x = axis(ticks=list(enumerate(titles)), range=[-0.15, len(axes) - 0.85], side="top", showgrid=False)
    drawn = figure(x, [(axis(range=[-0.05, 1.05], visible=False), traces, "")], 400)
    drawn["layout"]["margin"] = {"l": 20, "r": 20, "t": 44, "b": 16}
    for at, (_, ticks) in enumerate(axes):
        look = {"yref": "y", "xanchor": "right" if at else "left", "xshift": -6 if at else 6, "showarrow": False}
        notes = [{"x": at, "y": y, "text": text, "font": {"size": 11}, **look} for y, text in ticks]
        drawn["layout"]["annotations"] += notes
        line = {"type": "line", "line": {"color": GREY, "width": 1}, "yref": "y"}
        drawn["layout"]["shapes"].append({"x0": at, "x1": at, "y0": 0, "y1": 1, **line})
    return drawn


def _parallel_axis(study: Study, key: str) -> tuple[list[float], Ticks]:
    """Where in [0, 1] each run passes the axis of a key, and the text beside it."""
    levels = study.levels(key, study.scored)
    if study.is_numeric(key) and len(levels) > 1:
        scale: Callable[[float], float] = math.log10 if key == study.lr or is_geometric(levels) else float
        low, high = scale(levels[0]), scale(levels[-1])
        places = {value: (scale(value) - low) / (high - low) for value in levels}
    else:
        places = {value: i / max(1, len(levels) - 1) for i, value in enumerate(levels)}
    shown = _thinned(levels, places.__getitem__, 2 * CLOSE)
    ticks = [(places[value], f"{value:.3g}" if isinstance(value, float) else str(value)[:LETTERS]) for value in shown]
    return [places[study.value(run, key)] for run in study.scored], ticks


def _metric_axis(study: Study) -> tuple[list[float], Ticks]:
    """The same for the metric, by rank: the best at the top."""
    costs = sorted(study.cost(run) for run in study.scored)
    places = [1 - costs.index(study.cost(run)) / max(1, len(costs) - 1) for run in study.scored]
    shown = ((1.0, costs[0]), (0.5, costs[len(costs) // 2]), (0.0, costs[-1]))
    return places, [(place, f"{study.sign * cost:.4g}") for place, cost in shown]


def importance_figure(found: Importance, labels: Mapping[str, str]) -> Figure:
    """Bars with the spread between trees, the most important on top. A mean outside its quantiles ends the spread."""
    keys = list(found.shares)[::-1]
    means, lows, highs = zip(*(found.shares[key] for key in keys))
    spread = {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - mean) for high, mean in zip(highs, means)],
        "arrayminus": [max(0.0, mean - low) for low, mean in zip(lows, means)],
    }
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": list(means),
        "y": [labels.get(key, key) for key in keys],
        "width": 0.55,
        "marker": {"color": COLORS[0]},
        "error_x": {**spread, "thickness": 1.4, "color": GREY},
        "hovertemplate": "%{x:.0%}",
    }
    x = axis("share of the variance", rangemode="tozero", tickformat=".0%")
    return figure(x, [(axis(type="category", automargin=True), [bars], "")], 110 + 44 * len(keys))


def blend(place: float, scale: Sequence[tuple[float, str]]) -> str:
    """The colour of a place between the best, 0, and the worst, 1.

    >>> blend(0.0, SCALE)
    '#2a6f97'
    """
    colors = needed("matplotlib.colors", "a picture")
    return str(colors.to_hex(colors.LinearSegmentedColormap.from_list("scale", scale)(place)))
