"""The figures of the report, as view models: which series, axes, marks and colours they have."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from trainer.tools.drawing import COLORS, GREY, series_color
from trainer.tools.report.comparison import Importance
from trainer.tools.report.rates import Optimum, suits_log
from trainer.tools.report.response import HeatMap, RateCurve
from trainer.tools.report.runs import Points, Run
from trainer.tools.report.study import Study
from trainer.tools.report.view import PALE, Axis, Bars, Cells, Figure, Panel, Point, Series, Words, blend

RULE = "#9b1d3f"
CLOSE = 0.035
"""Ticks nearer to each other than this share of the axis would overlap."""
WORDS = 24
"""Letters of a word beside an axis."""


def rates_figure(study: Study, curves: Sequence[RateCurve]) -> Figure:
    """Metric against rate: each run a point, the means with their spread, the fitted parabola where there is one."""
    many = len(curves) > 1
    series = [one for i, curve in enumerate(curves) for one in _rate_series(study, curve, series_color(i), many)]
    values = [value for curve in curves for _, value in curve.points]
    worst = max(values) if study.sign > 0 else min(values)
    failed = [(rate, series_color(i)) for i, curve in enumerate(curves) for rate in curve.failed]
    if failed:
        series.append(
            Series(
                "no value",
                tuple((rate, worst) for rate, _ in failed),
                mark="cross",
                size=10,
                colors=tuple(color for _, color in failed),
                hover="{x}: failed, pruned or not finite",
                in_legend=many,
            )
        )
    rates = {rate for curve in curves for rate in (*(rate for rate, _ in curve.points), *curve.failed)}
    x = Axis(str(study.lr), log=True, ticks=value_ticks(rates, log=True) if len(rates) <= 10 else None)
    return Figure((Panel(x, Axis(study.metric, log=suits_log(values)), tuple(series)),), 440, (8, 4.6), legend=many)


def _rate_series(study: Study, curve: RateCurve, color: str, many: bool) -> list[Series]:
    runs = Series(
        curve.name,
        curve.points,
        color,
        mark="dots",
        opacity=0.55,
        runs=tuple(run.number for run in curve.runs),
        texts=tuple(run.name for run in curve.runs),
        hover=f"{study.metric} {{y}}, lr {{x}}, run {{text}}",
        group=curve.name,
        in_legend=many and not curve.is_grid,
    )
    series = [runs]
    if curve.is_grid:
        means = tuple((rate, found.mean) for rate, found in curve.means)
        spread = tuple(found.std or 0.0 for _, found in curve.means)
        spread = spread if any(spread) else ()
        style = {"mark": "line+dots", "width": 2.0, "size": 8.0}
        series.insert(0, Series(curve.name, means, color, spread=spread, group=curve.name, in_legend=many, **style))  # type: ignore[arg-type]
    if isinstance(curve.fit, Optimum):
        low, high = (math.log10(rate) for rate in curve.fit.window)
        rates = [10 ** (low + (high - low) * i / 40) for i in range(41)]
        parabola = tuple((rate, study.sign * curve.fit.cost(rate)) for rate in rates)
        series.append(Series(curve.name, parabola, color, dash="dot", width=1.4, group=curve.name))
    return series


def heat_figure(study: Study, heat: HeatMap) -> Figure:
    """A heat map of a grid, or coloured points where the settings make none; crosses, and lines of the batch rules."""
    x_of: Callable[[float], float] = math.log10
    y_of: Callable[[float], float] = math.log10 if heat.is_log else float

    def placed(at: Point) -> Point:
        return x_of(at[0]), y_of(at[1])

    values = {at: one.repeats.mean for at, one in heat.cells.items()}
    shades = _shades(values, study.sign)
    hover = f"{study.metric} {{text}}"
    cells, points = None, []
    if heat.is_grid and len(heat.xs) > 1 and len(heat.ys) > 1:
        cells = _cells(heat, shades, hover, (tuple(map(x_of, heat.xs)), tuple(map(y_of, heat.ys))))
    else:
        colors = tuple(blend(shades[at], PALE) for at in values)
        runs = tuple(one.runs[0].number for one in heat.cells.values())
        texts = tuple(f"{value:.4g}" for value in values.values())
        look = {"mark": "dots", "size": 11, "colors": colors, "runs": runs, "texts": texts, "hover": hover}
        points = [Series(heat.name, tuple(map(placed, values)), **look)]  # type: ignore[arg-type]
    failed = tuple((*placed(at), "✕") for at in sorted(heat.failed))
    crosses = (Words(failed, hover="failed, pruned or not finite", color=GREY),) if failed else ()
    rules = [
        Series(name, tuple(map(placed, rule)), RULE, dash=dash, width=2.5, opacity=0.75, in_legend=True)
        for name, rule, dash in (("linear rule", heat.linear, "solid"), ("√κ rule", heat.sqrt, "dash"))
        if rule
    ]
    x = _placed_axis(str(study.lr), heat.xs, x_of, heat.is_grid)
    y = _placed_axis(heat.name, heat.ys, y_of, heat.is_grid)
    panel = Panel(x, y, (*points, *rules), cells, words=crosses)
    rows = min(len(heat.ys), 8) if heat.is_grid else 6
    return Figure((panel,), max(300, 130 + 56 * rows), (8, 2.2 + 0.45 * rows), legend=bool(rules))


def _cells(
    heat: HeatMap, shades: Mapping[Point, float], hover: str, centres: tuple[tuple[float, ...], tuple[float, ...]]
) -> Cells:
    """The cells of a grid, with the mean as their text."""
    rows = [[(x, y) for x in heat.xs] for y in heat.ys]
    cells = heat.cells
    return Cells(
        *centres,
        tuple(tuple(shades.get(at) for at in row) for row in rows),
        tuple(tuple(f"{cells[at].repeats.mean:.4g}" if at in cells else "" for at in row) for row in rows),
        tuple(tuple(cells[at].runs[0].number if at in cells else None for at in row) for row in rows),
        hover,
    )


def _shades(values: Mapping[Point, float], sign: int) -> dict[Point, float]:
    """The place of each value between the best, 0, and the worst, 1; in the log where the values are far apart."""
    turn: Callable[[float], float] = math.log10 if suits_log(list(values.values())) else float
    costs = {at: sign * turn(value) for at, value in values.items()}
    low, high = min(costs.values()), max(costs.values())
    return {at: (cost - low) / (high - low) if high > low else 0.0 for at, cost in costs.items()}


def _placed_axis(title: str, values: Sequence[float], place: Callable[[float], float], is_grid: bool) -> Axis:
    """An axis of values that are placed already: half a cell beyond the ends of a grid, for rules may lead farther."""
    at = [place(value) for value in values]
    if not is_grid and len(values) > 5:
        low, high = at[0], at[-1]
        ticks = tuple((x, f"{10**x if place is math.log10 else x:.2g}") for x in _evenly(low, high, 5))
        return Axis(title, ticks=ticks, ends=(low - (high - low) / 30, high + (high - low) / 30))
    ticks = tuple((place(value), text) for value, text in value_ticks(values, log=place is math.log10))
    ends = (at[0] - (at[1] - at[0]) / 2, at[-1] + (at[-1] - at[-2]) / 2) if len(at) > 1 else None
    return Axis(title, ticks=ticks, ends=ends)


def _evenly(low: float, high: float, count: int) -> list[float]:
    return [low + (high - low) * i / (count - 1) for i in range(count)]


def value_ticks(values: Iterable[float], log: bool) -> tuple[tuple[float, str], ...]:
    """A tick at each value, without those that would overlap with the one before."""
    ordered = sorted(values)
    place: Callable[[float], float] = math.log10 if log else float
    apart = CLOSE * (place(ordered[-1]) - place(ordered[0]))
    ticks: list[tuple[float, str]] = []
    for value in ordered:
        if not ticks or place(value) - place(ticks[-1][0]) >= apart:
            ticks.append((value, f"{value:.3g}" if value < 1000 else f"{value:.6g}"))
    return tuple(ticks)


def curves_figure(metric: str, runs: Sequence[tuple[Run, str, Mapping[str, Points]]]) -> Figure:
    """Training loss, validated metric and rate by update, of runs that come with a name and their curves."""
    titles = {"loss": "training loss", "metric": metric.replace("test/", "val/", 1), "lr": "learning rate"}
    shown = [name for name in titles if any(name in curves for _, _, curves in runs)]
    panels = []
    for name in shown:
        series = tuple(
            _curve(run, label, curves[name], series_color(i), in_legend=name == shown[0] and len(runs) > 1)
            for i, (run, label, curves) in enumerate(runs)
            if name in curves
        )
        values = [y for one in series for _, y in one.points if math.isfinite(y)]
        log = name != "lr" and bool(values) and suits_log(values)
        y = Axis(titles[name], log=log, from_zero=name == "lr")
        panels.append(Panel(Axis("update"), y, series))
    return Figure(tuple(panels), 90 + 165 * len(shown), (8, 1.2 + 1.9 * len(shown)), legend=len(runs) > 1)


def _curve(run: Run, label: str, points: Points, color: str, in_legend: bool) -> Series:
    rounded = tuple((t, float(f"{value:.5g}")) for t, value in points)
    mark = "line+dots" if len(points) < 12 else "line"
    hover = f"{{y}} at update {{x}}, run {run.name}"
    look = {"mark": mark, "size": 5.0, "hover": hover}
    return Series(label, rounded, color, runs=(run.number,), group=str(run.number), in_legend=in_legend, **look)  # type: ignore[arg-type]


def parallel_figure(study: Study) -> Figure | None:
    """A line for each run through an axis for each key that varies, and one for the metric; the better the bluer."""
    if len(study.settings) < 2 or len(study.scored) < 4:
        return None
    axes = [_parallel_axis(study, key) for key in study.settings] + [_metric_axis(study)]
    labels = [*(study.labels[key] for key in study.settings), study.metric]
    ranks = axes[-1][0]
    series = tuple(
        Series(
            f"run {study.scored[i].name}",
            tuple((float(at), places[i]) for at, (places, _) in enumerate(axes)),
            blend(1 - ranks[i]),
            width=1.2 + 1.2 * ranks[i],
            opacity=0.35 + 0.6 * ranks[i] ** 2,
            runs=(study.scored[i].number,),
            hover=f"run {study.scored[i].name}",
        )
        for i in sorted(range(len(study.scored)), key=lambda i: ranks[i])
    )
    words = tuple(
        Words(tuple((float(at), y, text) for y, text in ticks), anchor="right" if at else "left")
        for at, (_, ticks) in enumerate(axes)
    )
    count = len(axes)
    x = Axis(ticks=tuple((float(i), label) for i, label in enumerate(labels)), ends=(-0.15, count - 0.85), on_top=True)
    y = Axis(ends=(-0.05, 1.05), visible=False)
    panel = Panel(x, y, series, words=words, uprights=tuple(float(i) for i in range(count)))
    return Figure((panel,), 400, (max(6.0, 1.9 * count), 4), wide=True)


def _parallel_axis(study: Study, key: str) -> tuple[list[float], list[tuple[float, str]]]:
    """Where in [0, 1] each run passes the axis of a key, and the words beside it."""
    levels = study.levels(key, study.scored)
    if study.is_numeric(key) and len(levels) > 1:
        scale: Callable[[float], float] = math.log10 if study.is_log(key) else float
        low, high = scale(levels[0]), scale(levels[-1])
        places = {value: (scale(value) - low) / (high - low) for value in levels}
    else:
        places = {value: i / max(1, len(levels) - 1) for i, value in enumerate(levels)}
    words: list[tuple[float, str]] = []
    for value in levels:
        if not words or places[value] - words[-1][0] >= 2 * CLOSE:
            words.append((places[value], f"{value:.3g}" if isinstance(value, float) else str(value)[:WORDS]))
    return [places[study.value(run, key)] for run in study.scored], words


def _metric_axis(study: Study) -> tuple[list[float], list[tuple[float, str]]]:
    """The same for the metric, by rank: the best at the top."""
    costs = sorted(study.cost(run) for run in study.scored)
    places = [1 - costs.index(study.cost(run)) / max(1, len(costs) - 1) for run in study.scored]
    shown = ((1.0, costs[0]), (0.5, costs[len(costs) // 2]), (0.0, costs[-1]))
    return places, [(place, f"{study.sign * cost:.4g}") for place, cost in shown]


def importance_figure(found: Importance, labels: Mapping[str, str]) -> Figure:
    """Bars with the spread between trees."""
    items = tuple((labels.get(key, key), *share) for key, share in found.shares.items())
    x = Axis("share of the variance", from_zero=True, percent=True)
    panel = Panel(x, Axis(), bars=Bars(items, COLORS[0], GREY))
    return Figure((panel,), 110 + 44 * len(items), (7, 1.1 + 0.45 * len(items)))
