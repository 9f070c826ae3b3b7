"""Draws the view model as a page: one HTML file that holds its data, its style, its script and the plotting library.

Figures become plain Plotly figures; the page's script gives them the colours of its theme.
"""

import json
import math
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from trainer.cli.extras import needed
from trainer.tools.drawing import GREY
from trainer.tools.report.view import (
    PALE,
    Axis,
    Bars,
    Cell,
    Cells,
    Figure,
    Panel,
    RunView,
    Section,
    Series,
    Table,
    View,
    Words,
)

HERE = Path(__file__).parent
CONTENT = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""The content policy: the page may load nothing but itself."""
MODES = {"dots": "markers", "line": "lines", "line+dots": "lines+markers", "cross": "markers"}
INK = "#10222e"
"""Words on a pale ground, in either theme."""
GAP = 0.06
"""The share of the height between two panels."""
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


def draw(figure: Figure) -> dict[str, Any]:
    """The figure as Plotly's data and layout."""
    data: list[Any] = []
    left = 20 if figure.wide else 64
    top, bottom = (44, 16) if figure.panels[-1].x.on_top else (20, 52)
    title = 18 / figure.height if any(panel.title for panel in figure.panels) else 0.0
    layout: dict[str, Any] = {
        "height": figure.height,
        "margin": {"l": left, "r": 20, "t": top, "b": bottom},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02 + title, "yanchor": "bottom", "x": 0},
        "showlegend": figure.legend,
        "annotations": [],
        "shapes": [],
    }
    count = len(figure.panels)
    for i, panel in enumerate(figure.panels):
        number = str(i + 1) if i else ""
        high = 1 - i / count
        y = {**_axis(panel.y), "domain": [max(0.0, high - 1 / count + (GAP if count > 1 else 0.0)), high]}
        layout[f"yaxis{number}"] = {**y, "type": "category", "automargin": True} if panel.bars else y
        data += _traces(panel, f"y{number}")
        layout["annotations"] += [*_annotations(panel, f"y{number}"), *_title(panel, high)]
        layout["shapes"] += _shapes(panel, f"y{number}")
    layout["xaxis"] = {**_axis(figure.panels[-1].x), "anchor": f"y{count}" if count > 1 else "y"}
    return {"data": data, "layout": layout}


def escaped(text: str) -> str:
    """Text that Plotly shows as it is: it reads a little HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", "<br>")


def _axis(axis: Axis) -> dict[str, Any]:
    drawn: dict[str, Any] = {"zeroline": False, "visible": axis.visible}
    if axis.title:
        drawn["title"] = {"text": escaped(axis.title)}
    if axis.log:
        drawn["type"] = "log"
        drawn["exponentformat"] = "power"
    if axis.ticks is not None:
        drawn |= {"tickvals": [at for at, _ in axis.ticks], "ticktext": [escaped(text) for _, text in axis.ticks]}
    if axis.ends:
        drawn["range"] = [math.log10(end) for end in axis.ends] if axis.log else list(axis.ends)
    if axis.from_zero:
        drawn["rangemode"] = "tozero"
    if axis.percent:
        drawn["tickformat"] = ".0%"
    if axis.on_top:
        drawn |= {"side": "top", "showgrid": False}
    return drawn


def _traces(panel: Panel, y: str) -> Iterator[dict[str, Any]]:
    if panel.cells:
        yield {**_heatmap(panel.cells), "yaxis": y}
    if panel.bars:
        yield {**_bars(panel.bars), "yaxis": y}
    for words in panel.words:
        if words.hover:
            yield {**_hover_words(words), "yaxis": y}
    for series in panel.series:
        yield {**_series(series), "yaxis": y}


def _series(series: Series) -> dict[str, Any]:
    xs, ys = zip(*series.points) if series.points else ((), ())
    color: Any = list(series.colors) or series.color
    trace: dict[str, Any] = {
        "x": list(xs),
        "y": [value if math.isfinite(value) else None for value in ys],
        "mode": MODES[series.mark],
        "name": escaped(series.name),
        "showlegend": series.in_legend,
        "opacity": series.opacity,
        **_hover(series.hover),
    }
    if series.group:
        trace["legendgroup"] = escaped(series.group)
    if "line" in series.mark:
        trace["line"] = {"color": color, "width": series.width, "dash": series.dash}
    if series.mark != "line":
        trace["marker"] = {"color": color, "size": series.size}
    if series.mark == "cross":
        trace["marker"] |= {"symbol": "x-thin-open", "line": {"width": 2}}
    if series.spread:
        bars = {"thickness": 1.2, "width": 4, "color": color}
        trace["error_y"] = {"type": "data", "array": list(series.spread), **bars}
    if series.texts:
        trace["text"] = [escaped(text) for text in series.texts]
    if series.runs:
        one = len(series.runs) == 1 and len(series.points) > 1
        trace |= {"meta": series.runs[0]} if one else {"customdata": list(series.runs)}
    return trace


def _hover(hover: str) -> dict[str, Any]:
    """What a pointer shows; {x}, {y} and {text} are those of the point."""
    if not hover:
        return {"hoverinfo": "skip"}
    text = escaped(hover).replace("{x}", "%{x:.4g}").replace("{y}", "%{y:.5g}").replace("{text}", "%{text}")
    return {"hovertemplate": f"{text}<extra></extra>"}


def _heatmap(cells: Cells) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": list(cells.xs),
        "y": list(cells.ys),
        "z": [list(row) for row in cells.shades],
        "zmin": 0,
        "zmax": 1,
        "text": [list(row) for row in cells.texts],
        "texttemplate": "%{text}",
        "textfont": {"color": INK},
        "customdata": [list(row) for row in cells.runs],
        "xgap": 2,
        "ygap": 2,
        "colorscale": [list(pair) for pair in PALE],
        "showscale": False,
        "showlegend": False,
        **_hover(cells.hover),
    }


def _bars(bars: Bars) -> dict[str, Any]:
    names, values, low, high = zip(*bars.items[::-1])
    reach = [[abs(end - value) for end, value in zip(ends, values)] for ends in (high, low)]
    return {
        "type": "bar",
        "orientation": "h",
        "x": list(values),
        "y": [escaped(name) for name in names],
        "marker": {"color": bars.color},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": reach[0],
            "arrayminus": reach[1],
            "thickness": 1.4,
            "color": bars.range_color,
        },
        "hovertemplate": "%{x:.0%}<extra></extra>",
        "width": 0.55,
        "showlegend": False,
    }


def _hover_words(words: Words) -> dict[str, Any]:
    xs, ys, texts = zip(*words.items)
    look = {"mode": "text", "textfont": {"color": words.color} if words.color else {}, "showlegend": False}
    return {"x": list(xs), "y": list(ys), "text": [escaped(text) for text in texts], **look, **_hover(words.hover)}


def _annotations(panel: Panel, y: str) -> Iterator[dict[str, Any]]:
    """Words without a hover, and the words of horizontal lines."""
    for words in panel.words:
        if not words.hover:
            shift = {"left": 6, "right": -6}.get(words.anchor, 0)
            for at, height, text in words.items:
                look = {"xanchor": words.anchor, "xshift": shift, "showarrow": False, "font": {"size": 11}}
                yield {"x": at, "y": height, "yref": y, "text": escaped(text), **look}
    for value, text in panel.levels:
        height = math.log10(value) if panel.y.log else value
        look = {"xanchor": "right", "yanchor": "bottom", "showarrow": False, "font": {"size": 11, "color": GREY}}
        yield {"x": 1, "xref": "paper", "y": height, "yref": y, "text": escaped(text), **look}


def _title(panel: Panel, top: float) -> Iterator[dict[str, Any]]:
    """The title of a panel, above it."""
    if panel.title:
        look = {"xanchor": "left", "yanchor": "bottom", "showarrow": False, "font": {"size": 12, "color": GREY}}
        yield {"x": 0, "xref": "paper", "y": top, "yref": "paper", "text": escaped(panel.title), **look}


def _shapes(panel: Panel, y: str) -> Iterator[dict[str, Any]]:
    line = {"color": GREY, "width": 1}
    for at in panel.uprights:
        yield {"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": y, "line": line}
    for value, _ in panel.levels:
        dashed = {**line, "dash": "dot"}
        yield {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "yref": y, "line": dashed}
