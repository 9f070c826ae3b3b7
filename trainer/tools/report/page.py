"""Writes the report as a page: one HTML file that holds its data, its style, its script and the plotting library.

The page's script gives the figures the colours of its theme.
"""

import math
import os
import shlex
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from trainer.tools.report.build import Report
from trainer.tools.report.figures import Cell, Row, curves_figure
from trainer.tools.report.runs import Run
from trainer.tools.report.study import Study, format_command, format_value
from trainer.tools.run_folders import is_number

HERE = Path(__file__).parent


def page(report: Report, out: Path, library: str, reload: int = 0) -> str:
    """The page as text; `out` is the folder that it will lie in, `library` is that of the plots.

    `reload`: seconds after which the page reloads itself, 0 for never.
    """
    study = report.study
    ways = {run.number: os.path.relpath(run.folder.resolve(), out.resolve()) for run in study.runs}
    links = {number: quote(Path(way).as_posix()) + "/" for number, way in ways.items()}
    figures = {one.name: for_plotly(one.figure) for one in (*report.claims, *report.sections) if one.figure}
    runs = [_record(report, run, links[run.number]) for run in study.runs]
    heads, rows = _runs(study)
    templates = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    return templates.get_template("page.html").render(
        report=report,
        study=study,
        best=study.configurations[0],
        run_again=format_command,
        links=links,
        heads=heads,
        rows=rows,
        data={"figures": figures, "runs": runs},
        library=library,
        reload=reload,
        now=time.strftime("%H:%M:%S"),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
    )


def _runs(study: Study) -> tuple[Row, list[tuple[Run, Row]]]:
    """The head of the table of runs, and a row for each, the best first; the metric that judges before the others."""
    metrics = sorted({name for run in study.scored for name in run.metrics}, key=lambda m: (m != study.metric, m))
    settings = [Cell(study.labels[key], "n" if study.is_numeric(key) else "") for key in study.varied]
    heads = [Cell("run"), *settings, *(Cell(name, "n") for name in (*metrics, "updates", "seconds"))]
    rows: list[tuple[Run, Row]] = []
    for run in [*sorted(study.scored, key=study.cost), *study.left_out]:
        values = [*(study.value(run, key) for key in study.varied), *map(run.metrics.get, metrics)]
        values += [run.result.get("updates"), run.result.get("seconds")]
        rows.append((run, [_cell(value) for value in values]))
    return heads, rows


def _cell(value: Any) -> Cell:
    text = "" if value is None else f"{value:.5g}" if isinstance(value, float) else format_value(value)[:60]
    return Cell(text, "n" if is_number(value) else "")


def _record(report: Report, run: Run, href: str) -> dict[str, Any]:
    """What the script knows of a run."""
    study, curves, folder = report.study, report.logged.get(run.number), str(report.folder / run.name)
    name = study.format_values(study.values(run, study.varied)) or run.name
    return {
        "number": run.number,
        "name": run.name,
        "href": href,
        "error": run.error,
        "command": format_command(run),
        "board": shlex.join(["tensorboard", "--logdir", folder]),
        "doctor": shlex.join(["cadence", "doctor", folder]),
        "curves": for_plotly(curves_figure(study.metric, [(run, name, curves)])) if curves else None,
    }


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
