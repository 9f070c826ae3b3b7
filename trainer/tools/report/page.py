"""The page: one HTML file that holds its data, its style, its script and the plotting library."""

import json
from collections.abc import Container, Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from trainer.cli.extras import needed
from trainer.tools.report import heat_plot, listing, plots, rate_plot
from trainer.tools.report.exhibit import Exhibit
from trainer.tools.report.heats import Heat
from trainer.tools.report.importance import Importance
from trainer.tools.report.study import Study

HERE = Path(__file__).parent
CONTENT = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""What the page may load: itself."""
SEEDS = "Points are runs, lines join the means over seeds, bars are one standard deviation"
CURVES = "The best configurations, one seed each; below, the rate that was applied. A row of the table has its own."
PARALLEL = "A line is a run, the better the bluer; click one to open it."


def library() -> str:
    """The plotting library as text.

    Raises:
        ConfigError: it is not installed.
    """
    plotly = needed("plotly", "the page")
    return files(plotly).joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def page(whole: Exhibit, script: str) -> str:
    """The page as text."""
    figures = dict(_figures(whole))
    parts = [_head(whole), _best(whole), _findings(whole), *_sections(whole, figures)]
    body = "\n".join(part for part in [*parts, listing.left_out(whole), listing.table(whole)] if part)
    data = {
        "figures": figures,
        "runs": [listing.record(whole, run) for run in whole.study.runs],
        "metric": whole.study.metric,
        "leading": [run.number for run in whole.leading],
    }
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{CONTENT}">
<link rel="icon" href="data:,">
<title>{escape(whole.title)}: {escape(whole.study.metric)}</title>
<style>
{(HERE / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="data">{_json(data)}</script>
<script>{script}</script>
<script>
{(HERE / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _figures(whole: Exhibit) -> Iterator[tuple[str, Any]]:
    """The figures that the study has something for, by the id of their place."""
    study = whole.study
    if whole.lines:
        yield "rates", rate_plot.rates(study, whole.lines)
    for name, told in (("batch", whole.batch), ("momentum", whole.momentum)):
        if told is not None:
            yield name, heat_plot.heat(study, told)
    if whole.parallel:
        yield "parallel", plots.parallel(study, whole.parallel)
    if isinstance(whole.importance, Importance):
        yield "importance", plots.importance(whole.importance, study.labels)


def _sections(whole: Exhibit, figures: dict[str, Any]) -> Iterator[str]:
    study, explained = whole.study, whole.importance
    lr = study.labels.get(str(study.lr), "")
    table = listing.optima(study, whole.lines) if whole.lines else ""
    yield _block("rates", f"{study.metric} against {lr}", _rates_note(whole), figures, table)
    for name, told in (("batch", whole.batch), ("momentum", whole.momentum)):
        if told is not None:
            yield _block(name, f"{lr} × {told.name}", _heat_note(study, told), figures)
    if whole.leading:
        yield _block("curves", "Learning curves", CURVES, {"curves"})
    yield _block("parallel", "All settings at once", PARALLEL, figures)
    if isinstance(explained, Importance):
        yield _block("importance", "Importance", _told(study, explained), figures)


def _block(name: str, title: str, note: str, figures: Container[str], below: str = "") -> str:
    if name not in figures:
        return ""
    head = f'<h2>{escape(title)}</h2><p class="note">{escape(note)}</p>'
    return f'<section id="{name}-section">{head}<div class="figure" id="{name}"></div>{below}</section>'


def _told(study: Study, explained: Importance) -> str:
    forest = f"by a random forest over {explained.runs} runs (R² {explained.explained:.2f} on runs it has not seen)"
    spread = "bars span 80 % of its trees. The rest are interactions."
    return f"Main effect of each setting on the rank of {study.metric}, {forest}; {spread}"


def _rates_note(whole: Exhibit) -> str:
    spread = SEEDS if whole.study.seed else "Points are runs"
    several = any(line.best_of_several and line.connected for line in whole.lines)
    best = "; lines are the best mean at each rate over what else varies" if several else ""
    dotted = "; dotted, the fitted parabola" if any(not isinstance(line.fit, str) for line in whole.lines) else ""
    failed = "; a cross is a run without a value" if any(line.failed for line in whole.lines) else ""
    return f"{spread}{best}{dotted}{failed}. Click a point to open its run."


def _heat_note(study: Study, told: Heat) -> str:
    kept = "Mean over seeds" if study.seed and told.grid else "Each run"
    rest = f", the best over {', '.join(told.others)}" if told.others and told.grid else ""
    return f"{kept}{rest}. {told.note}".strip()


def _head(whole: Exhibit) -> str:
    study = whole.study
    better = "less is better" if study.sign > 0 else "more is better"
    left = len(study.left_out)
    rest = f" · <a href='#left-out'>{left} left out</a>" if left else ""
    return f"""<header><p class="eyebrow">Cadence report</p><h1>{escape(whole.title)}</h1>
<p class="lead">{len(study.good)} of {len(study.runs)} runs{rest} · {escape(study.metric)}, {better}</p></header>"""


def _best(whole: Exhibit) -> str:
    cell = whole.study.cells[0]
    told = cell.repeats
    spread = f" <small>± {told.se:.2g} standard error, {told.n} seeds</small>" if told.se is not None else ""
    name = whole.study.name(cell.values) or whole.title
    return f"""<section class="best"><h2>Best configuration</h2><p class="value">{told.mean:.5g}{spread}</p>
<p>{escape(name)}</p>{listing.paste(whole.command)}</section>"""


def _findings(whole: Exhibit) -> str:
    """The sentences that no table has; of several lines of rates, those about the best one."""
    leading = whole.best_line.name if whole.best_line else ""
    kept = [one for one in whole.findings if one.kind not in ("optimum", "width") and one.line in ("", leading)]
    if not kept:
        return ""
    told = ((one.kind, escape(one.text), listing.paste(one.paste)) for one in kept)
    items = "".join(f'<li class="is-{kind}">{text}{paste}</li>' for kind, text, paste in told)
    return f'<section id="findings-section"><h2>What the runs say</h2><ul class="findings">{items}</ul></section>'


def _json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
