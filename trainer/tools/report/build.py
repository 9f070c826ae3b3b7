"""Builds the view of a study: the sections, tables, notes and commands that the report shows."""

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainer.lr import ConfigError
from trainer.tools.report import findings
from trainer.tools.report.claims import claim_sections, format_claim, read_claims
from trainer.tools.report.comparison import Importance, importance, is_number
from trainer.tools.report.figures import (
    curves_figure,
    heat_figure,
    importance_figure,
    parallel_figure,
    rates_figure,
)
from trainer.tools.report.response import (
    HeatMap,
    RateCurve,
    heat_map_of_batch,
    heat_map_of_momentum,
    rate_curves,
)
from trainer.tools.report.runs import POINTS, Points, Run, read_curves
from trainer.tools.report.study import Study, format_command, format_value
from trainer.tools.report.view import Best, Cell, RunView, Section, Table, View

OVERLAID = 6
"""Runs whose learning curves are laid over each other."""
BUDGET = 60_000
"""Points that a page carries for each of the three curves, over all runs."""
OVERLAY = "The best configurations, one seed each; below, the rate that was applied. A row of the table shows its own."
PARALLEL = "A line is a run, the better the bluer; click one to open it."

Curves = dict[int, dict[str, Points]]


@dataclass(frozen=True)
class Places:
    """Where the runs lie: the folder as typed, and the folder that the page will lie in."""

    folder: Path
    out: Path

    def href(self, run: Run) -> str:
        """The way from the page to the folder of a run."""
        way = Path(os.path.relpath(run.folder.resolve(), self.out.resolve())).as_posix()
        return quote(way) + "/"

    def command(self, run: Run, *command: str) -> str:
        """A command about the folder of a run."""
        return shlex.join([*command, str(self.folder / run.name)])


def build_view(study: Study, folder: Path, out: Path, within: float) -> View:
    """Everything that the report of a study shows; `folder` is as typed, `out` is where the page will lie."""
    places = Places(folder, out)
    curves = rate_curves(study, within)
    claims = read_claims(folder)
    asked = tuple(claim_sections(study, claims)) if claims else ()
    points = max(24, min(POINTS, BUDGET // len(study.runs)))
    logged = {run.number: read_curves(run.folder, study.metric, points) for run in study.runs}
    logged = {number: series for number, series in logged.items() if series}
    everything = findings.find_all(study, curves)
    title = folder.resolve().name or str(folder)
    metrics = _shown_metrics(study)
    return View(
        title=title,
        metric=study.metric,
        lead=f"{study.metric}, {'less' if study.sign > 0 else 'more'} is better",
        best=_best(study, title),
        findings=tuple(_leading_findings(study, curves, everything)),
        all_findings=tuple(everything),
        claims=asked,
        sections=tuple(one for one in _sections(study, curves, logged) if one.name not in {own.name for own in asked}),
        heads=tuple(_heads(study, metrics)),
        runs=tuple(_run_view(study, run, places, logged) for run in _ordered(study)),
        claim_lines=tuple(map(format_claim, claims.claims)) if claims else (),
    )


def _sections(study: Study, curves: Sequence[RateCurve], logged: Curves) -> Iterator[Section]:
    """The sections that the study has something for."""
    lr = study.labels.get(str(study.lr), "")
    if curves:
        title = f"{study.metric} against {lr}"
        yield Section("rates", title, _rates_note(study, curves), rates_figure(study, curves), _optima(study, curves))
    for name, heat in (("batch", heat_map_of_batch(study)), ("momentum", heat_map_of_momentum(study))):
        if heat is not None:
            yield Section(name, f"{lr} × {heat.name}", _heat_note(study, heat), heat_figure(study, heat))
    best = [one.runs[0] for one in study.configurations if one.runs[0].number in logged][:OVERLAID]
    if best:
        named = [(run, study.format_values(study.values(run, study.settings)) or run.name) for run in best]
        figure = curves_figure(study.metric, [(run, name, logged[run.number]) for run, name in named])
        yield Section("curves", "Learning curves", OVERLAY, figure)
    if (parallel := parallel_figure(study)) is not None:
        yield Section("parallel", "All settings at once", PARALLEL, parallel)
    yield from _importance(study)


def _importance(study: Study) -> Iterator[Section]:
    columns = {key: [study.value(run, key) for run in study.scored] for key in study.settings}
    try:
        result = importance(columns, [study.cost(run) for run in study.scored])
    except ConfigError as missing:
        yield Section("importance", "Importance", str(missing))
        return
    if isinstance(result, Importance):
        trees = f"by functional ANOVA over {result.runs} runs (R² {result.explained:.2f} on runs it has not seen)"
        note = f"Main effect of each setting on the rank of {study.metric}, {trees}; bars span 80 % of its trees."
        figure = importance_figure(result, study.labels)
        yield Section("importance", "Importance", f"{note} The rest are interactions.", figure)


def _rates_note(study: Study, curves: Sequence[RateCurve]) -> str:
    seeds = "Points are runs, lines join the means over seeds, bars are one standard deviation"
    parts = [seeds if study.seed else "Points are runs"]
    if any(curve.best_of_several and curve.is_grid for curve in curves):
        parts.append("lines are the best mean at each rate over what else varies")
    if any(not isinstance(curve.fit, str) for curve in curves):
        parts.append("dotted, the fitted parabola")
    if any(curve.failed for curve in curves):
        parts.append("a cross is a run without a value")
    return f"{'; '.join(parts)}. Click a point to open its run."


def _heat_note(study: Study, heat: HeatMap) -> str:
    each = "Mean over seeds" if study.seed and heat.is_grid else "Each run"
    rest = f", the best over {', '.join(heat.others)}" if heat.others and heat.is_grid else ""
    return f"{each}{rest}. {heat.note}".strip()


def _optima(study: Study, curves: Sequence[RateCurve]) -> Table:
    """A row for each rate curve: its best, its optimum, how far the rate may move."""
    within = next((f"within {100 * curve.width.within:g} % of it" for curve in curves if curve.width), "")
    heads = (("", False), ("best", True), ("at rate", True), ("optimum, 95 %", False), (within, False))
    return Table(heads, tuple(_optimum(study, curve) for curve in curves))


def _optimum(study: Study, curve: RateCurve) -> tuple[Cell, ...]:
    rate, best = min(curve.means, key=lambda pair: study.sign * pair[1].mean)
    fit, width, edge = curve.fit, curve.width, curve.edge
    side = "" if edge is None else f" ({edge.side} end)" if edge.extension else " (last with a value)"
    spread = f" ± {best.se:.2g}" if best.se is not None else ""
    interval = fit if isinstance(fit, str) else f"{fit.rate:.3g}, {fit.low:.3g} to {fit.high:.3g}"
    where = Cell(interval, role="soft" if isinstance(fit, str) else "")
    low, high = ("≤ " if width and width.open_low else "", "≥ " if width and width.open_high else "")
    span = f"{low}{width.low:.3g} to {high}{width.high:.3g}, {width.decades:.2g} decades" if width else ""
    return (Cell(curve.name), Cell(f"{best.mean:.5g}{spread}"), Cell(f"{rate:.3g}{side}"), where, Cell(span))


def _best(study: Study, title: str) -> Best:
    one = study.configurations[0]
    found = one.repeats
    error = f"± {found.se:.2g}" if found.se is not None else ""
    command = format_command(one.runs[0].overrides)
    return Best(f"{found.mean:.5g}", error, found.n, study.format_values(one.values) or title, command)


def _leading_findings(
    study: Study, curves: Sequence[RateCurve], everything: Sequence[findings.Finding]
) -> list[findings.Finding]:
    """The sentences that no table has; of several rate curves, those about the best one."""
    best = min(curves, key=lambda curve: min(study.sign * found.mean for _, found in curve.means), default=None)
    kept = ("", best.name if best else "")
    return [one for one in everything if one.kind not in ("optimum", "width") and one.curve in kept]


def _shown_metrics(study: Study) -> list[str]:
    """The metrics of the table, first the one that judges."""
    return sorted({name for run in study.scored for name in run.metrics}, key=lambda m: (m != study.metric, m))


def _heads(study: Study, metrics: Sequence[str]) -> list[tuple[str, bool]]:
    settings = [(study.labels[key], study.is_numeric(key)) for key in study.varied]
    return [("run", False), *settings, *((name, True) for name in (*metrics, "updates", "seconds"))]


def _ordered(study: Study) -> list[Run]:
    """The best run first; those left out at the end."""
    return [*sorted(study.scored, key=study.cost), *study.left_out]


def _run_view(study: Study, run: Run, places: Places, logged: Curves) -> RunView:
    values = [*(study.value(run, key) for key in study.varied), *map(run.metrics.get, _shown_metrics(study))]
    values += [run.result.get("updates"), run.result.get("seconds")]
    settings = study.format_values(study.values(run, study.varied))
    curves = logged.get(run.number)
    scored = {one.number for one in study.scored}
    return RunView(
        number=run.number,
        name=run.name,
        settings=settings,
        href=places.href(run),
        left_out="" if run.number in scored else study.why_left_out(run),
        error=run.error,
        cells=tuple(map(_cell, values)),
        curves=curves_figure(study.metric, [(run, settings or run.name, curves)]) if curves else None,
        command=format_command(run.overrides),
        tensorboard=places.command(run, "tensorboard", "--logdir"),
        doctor=places.command(run, "cadence", "doctor"),
    )


def _cell(value: Any) -> Cell:
    """A value of the table of runs; one that is a number is sorted as such."""
    text = "" if value is None else f"{value:.5g}" if isinstance(value, float) else format_value(value)[:60]
    return Cell(text, value if is_number(value) else None)
