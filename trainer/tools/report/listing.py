"""The runs on the page: those left out, the table, and what the page knows of each."""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from trainer.tools.report.exhibit import Exhibit
from trainer.tools.report.runs import Run
from trainer.tools.report.study import Study, command, numeric, shown
from trainer.tools.report.views import Line


def paste(words: str) -> str:
    """A command with a button that copies it."""
    return f'<div class="paste"><code>{escape(words)}</code><button type="button">copy</button></div>' if words else ""


def left_out(whole: Exhibit) -> str:
    """The runs that have no value, and why."""
    study = whole.study
    if not study.left_out:
        return ""
    rows = "".join(_missing(whole, run) for run in study.left_out)
    return f'<section id="left-out"><h2>Left out</h2><ul class="failed">{rows}</ul></section>'


def _missing(whole: Exhibit, run: Run) -> str:
    study = whole.study
    told = escape(study.name(study.at(run, study.varied)))
    error = f"<code>{escape(run.error)}</code>" if run.error else ""
    return f"<li>{_link(whole, run)} <b>{escape(study.why(run))}</b> {told}{error}</li>"


def optima(study: Study, lines: Sequence[Line]) -> str:
    """A row for each line of rates: its best, its optimum, how far the rate may move."""
    within = next((f"within {100 * line.width.within:g} % of it" for line in lines if line.width), "")
    heads = [("", False), ("best", True), ("at rate", True), ("optimum, 95 %", False), (within, False)]
    cells = "".join(f'<th scope="col"{" class=n" if number else ""}>{escape(name)}</th>' for name, number in heads)
    rows = "".join(_optimum(study, line) for line in lines)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div>'


def _optimum(study: Study, line: Line) -> str:
    rate, best = min(line.means, key=lambda pair: study.sign * pair[1].mean)
    fit, width = line.fit, line.width
    side = "" if line.edge is None else f" ({line.edge.side} end)" if line.edge.more else " (last with a value)"
    told = fit if isinstance(fit, str) else f"{fit.rate:.3g}, {fit.low:.3g} to {fit.high:.3g}"
    kind = ' class="soft"' if isinstance(fit, str) else ""
    spread = f" ± {best.se:.2g}" if best.se is not None else ""
    low, high = ("≤ " if width and width.open_low else "", "≥ " if width and width.open_high else "")
    span = f"{low}{width.low:.3g} to {high}{width.high:.3g}, {width.decades:.2g} decades" if width else ""
    values = f'<td class="n">{best.mean:.5g}{spread}</td><td class="n">{rate:.3g}{side}</td>'
    return f"<tr><td>{escape(line.name)}</td>{values}<td{kind}>{escape(told)}</td><td>{escape(span)}</td></tr>"


def table(whole: Exhibit) -> str:
    """A row for each run, the best first."""
    study = whole.study
    metrics = sorted({m for run in study.good for m in run.metrics}, key=lambda m: (m != study.metric, m))
    heads = [("run", False), *((study.labels[key], study.numeric(key)) for key in study.varied)]
    heads += [(name, True) for name in (*metrics, "updates", "seconds")]
    ordered = sorted(study.good, key=study.cost) + study.left_out
    cells = "".join(_head(name, number) for name, number in heads)
    missing = {run.number for run in study.left_out}
    rows = "".join(_row(whole, run, metrics, run.number in missing) for run in ordered)
    note = "A click on a row shows its curves, and the commands to look further."
    return f"""<section id="runs-section"><h2>Runs</h2><p class="note">{note}</p>
<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table></div></section>"""


def _head(name: str, number: bool) -> str:
    kind = ' class="n"' if number else ""
    return f'<th scope="col"{kind}><button type="button">{escape(name)}</button></th>'


def _row(whole: Exhibit, run: Run, metrics: Iterable[str], missing: bool) -> str:
    study = whole.study
    values = [*(study.value(run, key) for key in study.varied), *(run.metrics.get(m) for m in metrics)]
    values += [run.result.get("updates"), run.result.get("seconds")]
    cells = "".join(f"<td{_sorted(value)}>{escape(_short(value))}</td>" for value in values)
    state = f' <span class="state">{escape(study.why(run))}</span>' if missing else ""
    first = f'<td data-v="{run.number}">{_link(whole, run)}{state}</td>'
    return f'<tr data-run="{run.number}" tabindex="0" aria-expanded="false">{first}{cells}</tr>'


def _link(whole: Exhibit, run: Run) -> str:
    return f'<a href="{_href(whole, run)}" title="its folder">{escape(run.name)}</a>'


def _sorted(value: Any) -> str:
    return f' class="n" data-v="{value!r}"' if numeric(value) and math.isfinite(value) else ""


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else shown(value)[:60]


def record(whole: Exhibit, run: Run) -> dict[str, Any]:
    """What a row shows when it is opened."""
    study = whole.study
    curves = {
        name: [[step for step, _ in points], [_rounded(value) for _, value in points]]
        for name, points in whole.curves.get(run.number, {}).items()
    }
    told = {"number": run.number, "name": run.name, "title": study.name(study.at(run, study.varied)) or run.name}
    board = {"board": whole.board(run), "doctor": whole.doctor(run), "href": _href(whole, run)}
    return {**told, **board, "command": command(run.words), "error": run.error, "curves": curves}


def _href(whole: Exhibit, run: Run) -> str:
    return escape(quote(whole.links[run.number]) + "/")


def _rounded(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
