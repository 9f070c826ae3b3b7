"""Writes the report as a page: one HTML file that holds its data, its style, its script and the plotting library.

The page's script gives the figures the colours of its theme.
"""

import json
import math
import os
import shlex
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trainer.tools.report.build import Report
from trainer.tools.report.comparison import is_number
from trainer.tools.report.figures import Cell, Row, Section, curves_figure
from trainer.tools.report.runs import Run
from trainer.tools.report.study import Study, format_command, format_value

HERE = Path(__file__).parent
CONTENT = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The content policy: the page may load nothing but itself."""
NOTE = "A click on a row shows its curves, and the commands to look further."


def page(report: Report, out: Path, script: str) -> str:
    """The page as text; `out` is the folder that it will lie in, `script` is the plotting library."""
    study, links = report.study, {run.number: _href(run, out) for run in report.study.runs}
    found = [_best(report), _findings(report), *map(_section, report.sections)]
    parts = [_head(report), *map(_section, report.claims), *found, _left_out(study, links), _runs(study, links)]
    body = "\n".join(part for part in parts if part)
    figures = {one.name: one.figure for one in (*report.claims, *report.sections) if one.figure}
    runs = [_record(report, run, links[run.number]) for run in study.runs]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{CONTENT}">
<link rel="icon" href="data:,">
<title>{escape(report.title)}: {escape(study.metric)}</title>
<style>
{(HERE / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="data">{_json({"figures": for_plotly(figures), "runs": runs})}</script>
<script>{script}</script>
<script>
{(HERE / "page.js").read_text(encoding="utf-8")}</script>
</body>
</html>
"""


def _href(run: Run, out: Path) -> str:
    """The way from the page to the folder of a run."""
    return quote(Path(os.path.relpath(run.folder.resolve(), out.resolve())).as_posix()) + "/"


def _head(report: Report) -> str:
    study = report.study
    left = f" · <a href='#left-out'>{len(study.left_out)} left out</a>" if study.left_out else ""
    better = f"{study.metric}, {'less' if study.sign > 0 else 'more'} is better"
    return f"""<header><p class="eyebrow">Cadence report</p><h1>{escape(report.title)}</h1>
<p class="lead">{len(study.scored)} of {len(study.runs)} runs{left} · {escape(better)}</p></header>"""


def _best(report: Report) -> str:
    best = report.study.configurations[0]
    found, settings = best.repeats, report.study.format_values(best.values) or report.title
    spread = f" <small>± {found.se:.2g} standard error, {found.n} seeds</small>" if found.se is not None else ""
    return f"""<section class="best"><h2>Best configuration</h2><p class="value">{found.mean:.5g}{spread}</p>
<p>{escape(settings)}</p>{_command(format_command(best.runs[0].overrides))}</section>"""


def _command(command: str) -> str:
    """A command with a button that copies it."""
    if not command:
        return ""
    return f'<div class="paste"><code>{escape(command)}</code><button type="button">copy</button></div>'


def _findings(report: Report) -> str:
    items = "".join(
        f'<li class="is-{one.kind}">{escape(one.text)}{_command(one.command)}</li>' for one in report.findings
    )
    head = '<section id="findings-section"><h2>What the runs say</h2>'
    return f'{head}<ul class="findings">{items}</ul></section>' if items else ""


def _section(section: Section) -> str:
    name, note = escape(section.name), escape(section.note)
    figure = f'<div class="figure" id="{name}"></div>' if section.figure else ""
    table = ""
    if section.table:
        head, *rows = section.table
        table = _table(_cells(head, "th"), "".join(f"<tr>{_cells(row)}</tr>" for row in rows))
    top = f"<h2>{escape(section.title)}</h2>" + (f'<p class="note">{note}</p>' if note else "")
    return f'<section id="{name}-section">{top}{figure}{table}</section>'


def _table(head: str, rows: str) -> str:
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cells(row: Row, element: str = "td") -> str:
    return "".join(f'<{element} class="{cell.role}">{escape(cell.text)}</{element}>' for cell in row)


def _left_out(study: Study, links: dict[int, str]) -> str:
    """The runs that have no value, and why."""
    rows = []
    for run in study.left_out:
        settings = escape(study.format_values(study.values(run, study.varied)))
        error = f"<code>{escape(run.error)}</code>" if run.error else ""
        why = f"<b>{escape(study.why_left_out(run))}</b>"
        rows.append(f"<li>{_link(run, links)} {why} {settings}{error}</li>")
    head = '<section id="left-out"><h2>Left out</h2>'
    return f'{head}<ul class="failed">{"".join(rows)}</ul></section>' if rows else ""


def _runs(study: Study, links: dict[int, str]) -> str:
    """A row for each run, the best first, those left out at the end; first the metric that judges."""
    metrics = sorted({name for run in study.scored for name in run.metrics}, key=lambda m: (m != study.metric, m))
    heads = [("run", False), *((study.labels[key], study.is_numeric(key)) for key in study.varied)]
    heads += [(name, True) for name in (*metrics, "updates", "seconds")]
    head = "".join(
        f'<th class="{"n" if number else ""}"><button type="button">{escape(name)}</button></th>'
        for name, number in heads
    )
    states = {run.number: f' <span class="state">{escape(study.why_left_out(run))}</span>' for run in study.left_out}
    rows = []
    for run in [*sorted(study.scored, key=study.cost), *study.left_out]:
        values = [*(study.value(run, key) for key in study.varied), *map(run.metrics.get, metrics)]
        cells = _cells([_cell(value) for value in (*values, run.result.get("updates"), run.result.get("seconds"))])
        first = f"<td>{_link(run, links)}{states.get(run.number, '')}</td>"
        rows.append(f'<tr data-run="{run.number}" tabindex="0" aria-expanded="false">{first}{cells}</tr>')
    table = _table(head, "".join(rows))
    return f'<section id="runs-section"><h2>Runs</h2><p class="note">{NOTE}</p>{table}</section>'


def _cell(value: Any) -> Cell:
    text = "" if value is None else f"{value:.5g}" if isinstance(value, float) else format_value(value)[:60]
    return Cell(text, "n" if is_number(value) else "")


def _link(run: Run, links: dict[int, str]) -> str:
    return f'<a href="{escape(links[run.number])}" title="its folder">{escape(run.name)}</a>'


def _record(report: Report, run: Run, href: str) -> dict[str, Any]:
    """What the script knows of a run."""
    study, curves, folder = report.study, report.logged.get(run.number), str(report.folder / run.name)
    name = study.format_values(study.values(run, study.varied)) or run.name
    return {
        "number": run.number,
        "name": run.name,
        "href": href,
        "error": run.error,
        "command": format_command(run.overrides),
        "board": shlex.join(["tensorboard", "--logdir", folder]),
        "doctor": shlex.join(["cadence", "doctor", folder]),
        "curves": for_plotly(curves_figure(study.metric, [(run, name, curves)])) if curves else None,
    }


def _json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def for_plotly(tree: Any, key: str = "") -> Any:
    """A figure with its texts escaped, since Plotly reads a little HTML, and null for what is not finite."""
    if isinstance(tree, dict):
        return {name: for_plotly(value, name) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [for_plotly(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    if not isinstance(tree, str):
        return tree
    text = tree.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>")
    return f"{text}<extra></extra>" if key == "hovertemplate" else text
