"""Builds the report of a study: the sections with their figures, tables and notes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.lr import ConfigError
from trainer.tools.report import figures
from trainer.tools.report.claims import claim_sections, format_claim, read_claims
from trainer.tools.report.comparison import Importance, importance
from trainer.tools.report.figures import Cell, Row, Section
from trainer.tools.report.findings import Finding, answer_of_tune, find_all, leading_findings
from trainer.tools.report.response import HeatMap, RateCurve, heat_map_of_batch, heat_map_of_momentum, rate_curves
from trainer.tools.report.runs import POINTS, Points, read_curves
from trainer.tools.report.study import REPEATED, Study

OVERLAID = 6
"""Runs whose learning curves are laid over each other."""
BUDGET = 60_000
"""Points that a page carries for each of the three curves, over all runs."""
OVERLAY = "The best configurations, one seed each; below, the rate that was applied. A row of the table shows its own."
PARALLEL = "A line is a run, the better the bluer; click one to open it."

Curves = Mapping[int, Mapping[str, Points]]


@dataclass(frozen=True)
class Report:
    """The report of a study; `folder` is as typed.

    `findings` are those of the page, the terminal shows `all_findings`. `claims` are the sections of an experiment,
    which come first. `logged` are the curves of each run that has a log, by its number.
    """

    title: str
    study: Study
    folder: Path
    findings: Sequence[Finding]
    all_findings: Sequence[Finding]
    claims: Sequence[Section]
    claim_lines: Sequence[str]
    sections: Sequence[Section]
    logged: Curves


def build_report(study: Study, folder: Path, within: float) -> Report:
    """Everything that the report of a study shows; `folder` is as typed."""
    curves = rate_curves(study, within)
    claims = read_claims(folder)
    own = claim_sections(study, claims) if claims else []
    points = max(24, min(POINTS, BUDGET // len(study.runs)))
    read = {run.number: read_curves(run.folder, study.metric, points) for run in study.runs}
    logged = {number: series for number, series in read.items() if series}
    findings = [*answer_of_tune(study, folder), *find_all(study, curves)]
    return Report(
        title=folder.resolve().name or str(folder),
        study=study,
        folder=folder,
        findings=leading_findings(study, curves, findings),
        all_findings=findings,
        claims=own,
        claim_lines=[format_claim(claim) for claim in claims.claims] if claims else [],
        sections=[one for one in _sections(study, curves, logged) if one.name not in {claim.name for claim in own}],
        logged=logged,
    )


def _sections(study: Study, curves: Sequence[RateCurve], logged: Curves) -> Iterator[Section]:
    """The sections for which the study has the runs."""
    lr = study.labels.get(str(study.lr), "")
    if curves:
        title = f"{study.metric} against {lr}"
        yield Section(
            "rates", title, _rates_note(study, curves), figures.rates_figure(study, curves), _optima(study, curves)
        )
    for name, heat in (("batch", heat_map_of_batch(study)), ("momentum", heat_map_of_momentum(study))):
        if heat is not None:
            yield Section(name, f"{lr} × {heat.name}", _heat_note(study, heat), figures.heat_figure(study, heat))
    best = [one for one in study.configurations if one.runs[0].number in logged][:OVERLAID]
    if best:
        named = [(one.runs[0], study.format_values(one.values) or one.runs[0].name) for one in best]
        figure = figures.curves_figure(study.metric, [(run, name, logged[run.number]) for run, name in named])
        yield Section("curves", "Learning curves", OVERLAY, figure)
    if (parallel := figures.parallel_figure(study)) is not None:
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
        trees = f"by functional ANOVA over {len(study.scored)} runs (R² {result.explained:.2f} on runs it has not seen)"
        note = f"Main effect of each setting on the rank of {study.metric}, {trees}; bars span 80 % of its trees."
        figure = figures.importance_figure(result, study.labels)
        yield Section("importance", "Importance", f"{note} The rest are interactions.", figure)


def _rates_note(study: Study, curves: Sequence[RateCurve]) -> str:
    means = f"Points are runs, lines join the means over {study.repeated}, bars are one standard deviation"
    parts = [means if REPEATED.keys() & set(study.varied) else "Points are runs"]
    if any(curve.best_of_several and curve.is_grid for curve in curves):
        parts.append("lines are the best mean at each rate over what else varies")
    if any(not isinstance(curve.fit, str) for curve in curves):
        parts.append("dotted, the fitted parabola")
    if any(curve.failed for curve in curves):
        parts.append("a cross is a run without a value")
    return f"{'; '.join(parts)}. Click a point to open its run."


def _heat_note(study: Study, heat: HeatMap) -> str:
    each = f"Mean over {study.repeated}" if REPEATED.keys() & set(study.varied) and heat.is_grid else "Each run"
    rest = f", the best over {', '.join(heat.others)}" if heat.others and heat.is_grid else ""
    return f"{each}{rest}. {heat.note}".strip()


def _optima(study: Study, curves: Sequence[RateCurve]) -> list[Row]:
    """A row for each rate curve: its best, its optimum, how far the rate may move."""
    within = next((f"within {100 * curve.width.within:g} % of it" for curve in curves if curve.width), "")
    head = [Cell(""), Cell("best", "n"), Cell("at rate", "n"), Cell("optimum, 95 %"), Cell(within)]
    return [head, *(_optimum(study, curve) for curve in curves)]


def _optimum(study: Study, curve: RateCurve) -> Row:
    (rate, best), fit, width, edge = study.best_mean(curve.means), curve.fit, curve.width, curve.edge
    side = "" if edge is None else f" ({edge.side} end)" if edge.extension else " (last with a value)"
    spread = f" ± {best.se:.2g}" if best.se is not None else ""
    interval = Cell(fit, "soft") if isinstance(fit, str) else Cell(f"{fit.rate:.3g}, {fit.low:.3g} to {fit.high:.3g}")
    low, high = ("≤ " if width and width.open_low else "", "≥ " if width and width.open_high else "")
    span = f"{low}{width.low:.3g} to {high}{width.high:.3g}, {width.decades:.2g} decades" if width else ""
    return [
        Cell(curve.name),
        Cell(f"{best.mean:.5g}{spread}", "n"),
        Cell(f"{rate:.3g}{side}", "n"),
        interval,
        Cell(span),
    ]
