"""The page: one HTML file that holds its data, its style, its script and the plotting library."""

import json
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from trainer.cli.extras import needed
from trainer.tools.report.plotly_figure import draw
from trainer.tools.report.view import Cell, RunView, Section, Table, View

HERE = Path(__file__).parent
CONTENT = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The content policy: the page may load nothing but itself."""
NOTE = "A click on a row shows its curves, and the commands to look further."


def plotly_script() -> str:
    """The plotting library as text.

    Raises:
        ConfigError: it is not installed.
    """
    plotly = needed("plotly", "the page")
    return files(plotly).joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def page(view: View, script: str) -> str:
    """The page as text; `script` is the plotting library."""
    found = [_best(view), _findings(view), *map(_section, view.sections)]
    parts = [_head(view), *map(_section, view.claims), *found, _left_out(view), _runs(view)]
    body = "\n".join(part for part in parts if part)
    data = {
        "figures": {one.name: draw(one.figure) for one in (*view.claims, *view.sections) if one.figure},
        "runs": [_record(run) for run in sorted(view.runs, key=lambda run: run.number)],
    }
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{CONTENT}">
<link rel="icon" href="data:,">
<title>{escape(view.title)}: {escape(view.metric)}</title>
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


def _head(view: View) -> str:
    left, count = len(view.left_out), len(view.runs)
    rest = f" · <a href='#left-out'>{left} left out</a>" if left else ""
    return f"""<header><p class="eyebrow">Cadence report</p><h1>{escape(view.title)}</h1>
<p class="lead">{count - left} of {count} runs{rest} · {escape(view.lead)}</p></header>"""


def _best(view: View) -> str:
    best = view.best
    spread = f" <small>{best.error} standard error, {best.seeds} seeds</small>" if best.error else ""
    return f"""<section class="best"><h2>Best configuration</h2><p class="value">{escape(best.value)}{spread}</p>
<p>{escape(best.settings)}</p>{_command(best.command)}</section>"""


def _command(command: str) -> str:
    """A command with a button that copies it."""
    if not command:
        return ""
    return f'<div class="paste"><code>{escape(command)}</code><button type="button">copy</button></div>'


def _findings(view: View) -> str:
    if not view.findings:
        return ""
    items = "".join(
        f'<li class="is-{one.kind}">{escape(one.text)}{_command(one.command)}</li>' for one in view.findings
    )
    return f'<section id="findings-section"><h2>What the runs say</h2><ul class="findings">{items}</ul></section>'


def _section(section: Section) -> str:
    name, note = escape(section.name), escape(section.note)
    figure = f'<div class="figure" id="{name}"></div>' if section.figure else ""
    table = _table(section.table) if section.table else ""
    head = f"<h2>{escape(section.title)}</h2>" + (f'<p class="note">{note}</p>' if note else "")
    return f'<section id="{name}-section">{head}{figure}{table}</section>'


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col"{_kind(number)}>{escape(name)}</th>' for name, number in table.heads)
    rows = "".join(
        f"<tr>{''.join(_cell(cell, number) for cell, (_, number) in zip(row, table.heads))}</tr>" for row in table.rows
    )
    return _scrolled(heads, rows)


def _scrolled(heads: str, rows: str) -> str:
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _kind(number: bool, role: str = "") -> str:
    names = [name for name in ("n" if number else "", role) if name]
    return f' class="{" ".join(names)}"' if names else ""


def _cell(cell: Cell, number: bool) -> str:
    value = f' data-v="{cell.number!r}"' if cell.number is not None else ""
    return f"<td{_kind(number, cell.role)}{value}>{escape(cell.text)}</td>"


def _left_out(view: View) -> str:
    """The runs that have no value, and why."""
    if not view.left_out:
        return ""
    rows = "".join(
        f"<li>{_link(run)} <b>{escape(run.left_out)}</b> {escape(run.settings)}{_error(run)}</li>"
        for run in view.left_out
    )
    return f'<section id="left-out"><h2>Left out</h2><ul class="failed">{rows}</ul></section>'


def _error(run: RunView) -> str:
    return f"<code>{escape(run.error)}</code>" if run.error else ""


def _runs(view: View) -> str:
    """A row for each run, the best first."""
    heads = "".join(
        f'<th scope="col"{_kind(number)}><button type="button">{escape(name)}</button></th>'
        for name, number in view.heads
    )
    rows = "".join(map(_row, view.runs))
    return f'<section id="runs-section"><h2>Runs</h2><p class="note">{NOTE}</p>{_scrolled(heads, rows)}</section>'


def _row(run: RunView) -> str:
    state = f' <span class="state">{escape(run.left_out)}</span>' if run.left_out else ""
    first = f'<td data-v="{run.number}">{_link(run)}{state}</td>'
    cells = "".join(_cell(cell, cell.number is not None) for cell in run.cells)
    return f'<tr data-run="{run.number}" tabindex="0" aria-expanded="false">{first}{cells}</tr>'


def _link(run: RunView) -> str:
    return f'<a href="{escape(run.href)}" title="its folder">{escape(run.name)}</a>'


def _record(run: RunView) -> dict[str, Any]:
    """What the script knows of a run."""
    return {
        "number": run.number,
        "name": run.name,
        "href": escape(run.href),
        "error": run.error,
        "command": run.command,
        "board": run.tensorboard,
        "doctor": run.doctor,
        "curves": draw(run.curves) if run.curves else None,
    }


def _json(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
