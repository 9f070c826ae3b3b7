"""A tune as text and as a picture."""

import math
from collections.abc import Sequence
from typing import Any

from trainer.tools.drawing import GREY, new_figure, plain, series_color
from trainer.tools.tune.answer import Answer, StageResult
from trainer.tools.tune.axes import Axis

ANSWER = "#c1272d"
"""The colour of the answer."""


def format_stage(stage: StageResult, axes: Sequence[Axis]) -> list[str]:
    """A row for each point: its values, its score, and how much worse it is than the best one."""
    table = stage.table
    rows = [(*(axis.name for axis in axes), "score", "seeds", "worse by")]
    for point, score in sorted(table.scores.items()):
        values = [f"{axis.at(place):.4g}{axis.unit}" for axis, place in zip(axes, point)]
        error = table.error(point)
        worse = "best" if point == table.best else f"{table.excess(point):.2g}"
        worse += f" ± {error:.2g}" if error is not None and point != table.best and math.isfinite(score) else ""
        shown = ("broke", "") if math.isinf(score) else (f"{score:.4g}", worse)
        rows.append((*values, shown[0], str(table.counts[point]), shown[1]))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def format_answer(answer: Answer) -> list[str]:
    """The answer, what its neighbours cost, what it cost, the line to paste, and how it may change."""
    lines = []
    for i, (axis, value) in enumerate(zip(answer.axes, answer.values)):
        low, high = answer.interval(i)
        ends = [f"{side} {end:.3g}{axis.unit}" for side, end in (("above", low), ("below", high)) if end is not None]
        said = " and ".join(ends)
        ends_by = f"the best lies {said} (each end by a t-test at 95 %)"
        ends_by = ends_by if said else "a t-test at 95 % finds no end on either side"
        lines.append(f"{axis.key}: {value:.3g}{axis.unit}; {ends_by}")
        if side := answer.open_side(i):
            lines.append(
                f"nothing {side} it was trained for {answer.stages[-1].updates:,} updates: the best may lie there"
            )
    if answer.flat:
        lines.append("nothing that was tried beside it is worse beyond the noise: any of it will do")
    for values, regret, error in answer.neighbours():
        named = ", ".join(f"{value:.4g}{axis.unit}" for axis, value in zip(answer.axes, values))
        spread = "" if error is None or not math.isfinite(error) else f" ± {100 * error:.1f}"
        lines.append(
            f"neighbour {named}: " + ("broke" if math.isinf(regret) else f"{100 * regret:.1f}{spread} % worse")
        )
    saved = f"a grid of quarter-decades over the same span, with 2 seeds at full length: {answer.grid_runs} runs"
    lines.append(f"cost: {answer.made:,} updates = {answer.runs:.2g} whole runs, {answer.seconds:.0f} s; {saved}")
    return [*lines, *answer.changes, f"paste: {' '.join(answer.overrides)}"]


def draw(answer: Answer, score: str) -> Any:
    """The scores against the number, or for two numbers the points of the last stage in their plane."""
    if len(answer.axes) == 2:
        return _draw_plane(answer, score)
    (axis,) = answer.axes
    figure, (panel,) = new_figure(7.0, 4.2)
    finite = [cost for stage in answer.stages for cost in stage.costs.values() if math.isfinite(cost)]
    for i, stage in enumerate(answer.distinct_stages):
        seen = [(axis.at(point[0]), cost) for (point, _), cost in stage.costs.items() if math.isfinite(cost)]
        means = [(axis.at(point[0]), one) for point, one in sorted(stage.table.scores.items()) if math.isfinite(one)]
        panel.plot(*zip(*seen), "o", color=series_color(i), alpha=0.4, markersize=4)
        panel.plot(*zip(*means), "-", color=series_color(i), label=f"{stage.updates:,} updates")
        broke = sorted({axis.at(point[0]) for (point, _), cost in stage.costs.items() if math.isinf(cost)})
        panel.plot(broke, [max(finite)] * len(broke), "x", color=series_color(i))
    panel.axvline(answer.values[0], color=ANSWER, label=plain(" ".join(answer.overrides)))
    panel.set(xlabel=plain(axis.key), ylabel=plain(score), xscale="log" if axis.name != "momentum" else "linear")
    left, right = panel.get_xlim()
    low, high = answer.interval()
    panel.axvspan(low or left, high or right, color=GREY, alpha=0.12, linewidth=0, label="where the best lies")
    panel.set_xlim(left, right)
    panel.tick_params(axis="x", which="minor", labelbottom=False)
    if sum(left <= tick <= right for tick in panel.get_xticks()) < 2:
        places = sorted({axis.at(point[0]) for stage in answer.stages for point, _ in stage.costs})[::2]
        panel.set_xticks(places, [f"{place:.3g}" for place in places])
    panel.legend(frameon=False, fontsize=8)
    return figure


def _draw_plane(answer: Answer, score: str) -> Any:
    first, second = answer.axes
    figure, (panel,) = new_figure(6.0, 4.6)
    scores = {point: one for point, one in answer.fine.scores.items() if math.isfinite(one)}
    xs, ys = [first.at(point[0]) for point in scores], [second.at(point[1]) for point in scores]
    shown = panel.scatter(xs, ys, c=list(scores.values()), s=160, cmap="viridis_r")
    panel.plot(*([value] for value in answer.values), "*", color=ANSWER, markersize=14)
    figure.colorbar(shown, label=plain(score))
    scales = ["linear" if axis.name == "momentum" else "log" for axis in answer.axes]
    panel.set(xlabel=plain(first.key), ylabel=plain(second.key), xscale=scales[0], yscale=scales[1])
    return figure
