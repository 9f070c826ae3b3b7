"""The section of the claims, and the plots that an experiment asks for, as view models."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.lr import ConfigError
from trainer.tools.drawing import series_color
from trainer.tools.report.claims import SAMPLES, UPDATE, Claim, Claims, Plot
from trainer.tools.report.comparison import by_seed, is_number, repeats, value_order
from trainer.tools.report.figures import value_ticks
from trainer.tools.report.rates import is_geometric, suits_log
from trainer.tools.report.runs import POINTS, Run, mean_points, scalars, some_points
from trainer.tools.report.study import Study, format_value
from trainer.tools.report.view import Axis, Cell, Figure, Panel, Point, Section, Series, Table

FROM_RESULT = ("updates", "seconds")
"""Numbers of `result.json` beside its metrics."""


def claim_sections(study: Study, claims: Claims) -> list[Section]:
    """The table of the claims, then a section for each plot."""
    plots = [Section(plot.name, plot.title, plot.note, plot_figure(study, plot)) for plot in claims.plots]
    if not claims.claims:
        return plots
    heads = (("", False), ("claim", False), ("measured", True), ("threshold", False), ("source", False))
    rows = tuple(_claim_row(claim, claims.source) for claim in claims.claims)
    title = f"Claims: {claims.title}" if claims.title else "Claims"
    wrong = sum(not claim.is_as_it_must for claim in claims.claims)
    note = f"{len(rows) - wrong} of {len(rows)} as they must be. {claims.source}".strip()
    return [Section("claims", title, note, table=Table(heads, rows)), *plots]


def _claim_row(claim: Claim, source: str) -> tuple[Cell, ...]:
    role = "soft" if claim.kind == "note" else "good" if claim.is_as_it_must else "bad"
    text = f"{claim.text} ({claim.note})" if claim.note else claim.text
    return (
        Cell(outcome(claim), role=role),
        Cell(text, role="wide"),
        Cell(_number(claim.measured), claim.measured if isinstance(claim.measured, int | float) else None),
        Cell(f"{claim.relation} {_number(claim.threshold)}".strip()),
        Cell(claim.source or source, role="wide"),
    )


def outcome(claim: Claim) -> str:
    """The word of the verdict."""
    if claim.outcome or claim.kind == "note":
        return claim.outcome or "seen"
    return "holds" if claim.holds else "does not hold"


def format_claim(claim: Claim) -> str:
    """A claim as a line for a terminal."""
    threshold = f"{claim.relation} {_number(claim.threshold)}".strip()
    return f"{outcome(claim)}: {claim.text}: {_number(claim.measured)} ({threshold})"


def _number(value: Any) -> str:
    return f"{value:.4g}" if is_number(value) else str(value)


def plot_figure(study: Study, plot: Plot) -> Figure:
    """The figure of a plot.

    Raises:
        ConfigError: no run has what it shows, or runs at one point differ in more than the seed.
    """
    kept = [run for run in study.described if _matches(study, run, plot.where or {})]
    panels = []
    values: list[float] = []
    for value, runs in _grouped(study, kept, plot.panels):
        lines = _grouped(study, runs, plot.lines)
        draw = _log_series if plot.x in (UPDATE, SAMPLES) else _metric_series
        series = draw(study, plot, lines)
        if series:
            name = f"{plot.y}\n{_label(study, plot.panels)} {format_value(value)}" if plot.panels else plot.y
            panels.append((name, series))
            values += [y for one in series for _, y in one.points]
    if not panels:
        raise ConfigError(f"plot {plot.name}: no run has {plot.y} and {plot.x}: take names of its result and config.")
    x = _x_axis(study, plot, kept)
    log = suits_log([*values, *(level for level, _ in plot.levels)])
    drawn = tuple(Panel(x, Axis(name, log=log), series, levels=tuple(plot.levels)) for name, series in panels)
    height = 120 + (330 if len(drawn) == 1 else 240) * len(drawn)
    return Figure(drawn, height, (8, 1.2 + (3.4 if len(drawn) == 1 else 2.4) * len(drawn)), legend=bool(plot.lines))


def _matches(study: Study, run: Run, where: Mapping[str, Any]) -> bool:
    return all(format_value(study.value(run, key)) == format_value(value) for key, value in where.items())


def _label(study: Study, key: str) -> str:
    return study.labels.get(key, key.rpartition(".")[2])


def _grouped(study: Study, runs: Sequence[Run], key: str) -> list[tuple[Any, list[Run]]]:
    """The runs by their value of a key, in order; all in one group where there is no key."""
    if not key:
        return [("", list(runs))]
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(study.value(run, key), []).append(run)
    return sorted(groups.items(), key=lambda item: value_order(item[0]))


def _x_value(study: Study, run: Run, key: str) -> Any:
    return study.batches.get(run.number, study.value(run, key)) if key == "global batch" else study.value(run, key)


def _x_axis(study: Study, plot: Plot, runs: Sequence[Run]) -> Axis:
    if plot.x in (UPDATE, SAMPLES):
        return Axis(plot.x)
    levels = sorted({_x_value(study, run, plot.x) for run in runs}, key=value_order)
    if not all(map(is_number, levels)):
        ticks = tuple((float(i), format_value(level)) for i, level in enumerate(levels))
        return Axis(plot.x, ticks=ticks, ends=(-0.3, len(levels) - 0.7))
    log = is_geometric(levels)
    return Axis(plot.x, log=log, ticks=value_ticks(levels, log) if len(levels) <= 10 else None)


def _metric_series(study: Study, plot: Plot, lines: Sequence[tuple[Any, list[Run]]]) -> tuple[Series, ...]:
    """For each line its means over seeds with their spread, and a point for each run."""
    everything = sorted({_x_value(study, run, plot.x) for _, runs in lines for run in runs}, key=value_order)
    words = not all(map(is_number, everything))
    places = {level: float(i) if words else float(level) for i, level in enumerate(everything)}
    series = []
    for i, (value, runs) in enumerate(lines):
        points: dict[float, list[tuple[Run, float]]] = {}
        for run in runs:
            if (y := _y_value(run, plot.y)) is not None:
                points.setdefault(places[_x_value(study, run, plot.x)], []).append((run, y))
        for same in points.values():
            _refuse_mixture(study, plot, [run for run, _ in same])
        means = {x: repeats(list(by_seed((run.seed, y) for run, y in same).values())) for x, same in points.items()}
        name = f"{_label(study, plot.lines)} {format_value(value)}" if plot.lines else plot.y
        series += _line_series(name, series_color(i), {x: means[x] for x in sorted(means)}, points)
    return tuple(series)


def _line_series(name: str, color: str, means: Mapping[float, Any], points: Mapping[float, Any]) -> list[Series]:
    if not means:
        return []
    spread = tuple(found.std or 0.0 for found in means.values())
    line = Series(
        name,
        tuple((x, found.mean) for x, found in means.items()),
        color,
        mark="line+dots",
        size=7,
        spread=spread if any(spread) else (),
        group=name,
        in_legend=True,
    )
    each = [(run, (x, y)) for x, same in points.items() for run, y in same]
    runs = Series(
        name,
        tuple(point for _, point in each),
        color,
        mark="dots",
        opacity=0.55,
        size=5,
        runs=tuple(run.number for run, _ in each),
        texts=tuple(run.name for run, _ in each),
        hover="{y} at {x}, run {text}",
        group=name,
    )
    return [line, runs]


def _y_value(run: Run, name: str) -> float | None:
    if name in FROM_RESULT:
        value = run.result.get(name) if run.status == "completed" else None
        return float(value) if is_number(value) else None  # type: ignore[arg-type]
    return run.value(name)


def _refuse_mixture(study: Study, plot: Plot, runs: Sequence[Run]) -> None:
    mixed = [key for key in study.settings if key != plot.x and len(study.levels(key, runs)) > 1]
    if mixed:
        raise ConfigError(
            f"plot {plot.name}: runs at one point differ in {', '.join(mixed)}, too: name it in lines, panels or where."
        )


def _log_series(study: Study, plot: Plot, lines: Sequence[tuple[Any, list[Run]]]) -> tuple[Series, ...]:
    """A line for each run that logged the tag, in the colour of its group."""
    series = []
    for i, (value, runs) in enumerate(lines):
        name = f"{_label(study, plot.lines)} {format_value(value)}" if plot.lines else plot.y
        logged = [(run, points) for run in runs if (points := _logged(run, plot))]
        for k, (run, points) in enumerate(logged):
            hover = f"{{y}} at {{x}}, run {run.name}"
            style = {"width": 1.4, "opacity": 0.8, "runs": (run.number,), "hover": hover, "group": name}
            series.append(Series(name, points, series_color(i), in_legend=k == 0, **style))  # type: ignore[arg-type]
    return tuple(series)


def _logged(run: Run, plot: Plot) -> tuple[Point, ...]:
    """The logged values of a tag, by update or by the samples seen up to it."""
    points = scalars(run.folder, (plot.y,)).get(plot.y, [])
    few = (mean_points if plot.y.startswith("train/") else some_points)(points, POINTS)
    return tuple((samples_seen(run, t) if plot.x == SAMPLES else float(t), value) for t, value in few)


def samples_seen(run: Run, t: int) -> float:
    """The samples that a run has seen after update `t`, by its plan; 0 where it has none."""
    stages = run.plan.get("batches") or [{"update": 0, "samples": 0, "batch": run.plan.get("global_batch") or 0}]
    stage = next((one for one in reversed(stages) if one["update"] <= t), stages[0])
    return float(stage["samples"] + (t + 1 - stage["update"]) * stage["batch"])
