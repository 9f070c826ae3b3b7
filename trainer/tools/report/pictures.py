"""The same pictures as PNGs, for a paper, a chat or a terminal without a browser."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from trainer.tools.plan.picture import COLORS, GREY
from trainer.tools.report.exhibit import Exhibit
from trainer.tools.report.heats import Heat
from trainer.tools.report.importance import Importance
from trainer.tools.report.optimum import Optimum
from trainer.tools.report.plots import PALE, blend
from trainer.tools.report.study import Study
from trainer.tools.report.views import scaled_log

PANELS = {"loss": "training loss", "metric": "", "lr": "learning rate"}


def save(whole: Exhibit, folder: Path) -> list[str]:
    """Draw what the study has something for, as PNG files in `folder`; their names."""
    names = []
    for name, figure in _drawn(whole):
        for panel in figure.axes:
            panel.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / f"{name}.png", dpi=120)
        names.append(f"{name}.png")
    return names


def _drawn(whole: Exhibit) -> Iterator[tuple[str, Figure]]:
    if whole.lines:
        yield "rates", _rates(whole)
    for name, told in (("batch", whole.batch), ("momentum", whole.momentum)):
        if told is not None:
            yield name, _heat(whole.study, told)
    if whole.leading:
        yield "curves", _curves(whole)
    if whole.parallel:
        yield "parallel", _parallel(whole)
    if isinstance(whole.importance, Importance):
        yield "importance", _importance(whole.importance, whole.study.labels)


def _figure(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0])


def _rates(whole: Exhibit) -> Figure:
    figure, (panel,) = _figure(8, 4.6)
    for line, color in zip(whole.lines, cycle(COLORS)):
        panel.plot(
            *zip(*line.points),
            "o",
            color=color,
            markersize=4,
            alpha=0.5,
            label=None if line.connected else plain(line.name),
        )
        if line.connected:
            spread = [found.std or 0.0 for _, found in line.means]
            rates, means = [rate for rate, _ in line.means], [found.mean for _, found in line.means]
            panel.errorbar(
                rates, means, spread, color=color, marker="o", markersize=5, capsize=3, label=plain(line.name)
            )
        if isinstance(line.fit, Optimum):
            low, high = map(math.log10, line.fit.window)
            grid = [10 ** (low + (high - low) * i / 40) for i in range(41)]
            panel.plot(grid, [whole.study.sign * line.fit.cost(rate) for rate in grid], ":", color=color, linewidth=1.3)
        for rate in line.failed:
            panel.plot(rate, 0.98, "x", color=color, transform=panel.get_xaxis_transform(), clip_on=False)
    values = [value for line in whole.lines for _, value in line.points]
    panel.set(
        xscale="log",
        yscale="log" if scaled_log(values) else "linear",
        xlabel=plain(str(whole.study.lr)),
        ylabel=plain(whole.study.metric),
    )
    if len(whole.lines) > 1:
        panel.legend(frameon=False, fontsize=9)
    return figure


def _heat(study: Study, told: Heat) -> Figure:
    figure, (panel,) = _figure(8, 2.2 + 0.45 * min(len(told.ys), 12))
    place: Callable[[float], float] = math.log10 if told.log else float
    values = {at: cell.repeats.mean for at, cell in told.cells.items()}
    turn: Callable[[float], float] = math.log10 if scaled_log(list(values.values())) else float
    colors = LinearSegmentedColormap.from_list("merit", [color for _, color in PALE])
    shade = {at: study.sign * turn(value) for at, value in values.items()}
    xs, ys = [math.log10(x) for x in told.xs], [place(y) for y in told.ys]
    if told.grid and len(xs) > 1 and len(ys) > 1:
        table = [[shade.get((x, y), math.nan) for x in told.xs] for y in told.ys]
        panel.pcolormesh(xs, ys, table, shading="nearest", cmap=colors, edgecolors="white", linewidth=2)
        for (x, y), value in values.items():
            panel.text(math.log10(x), place(y), f"{value:.4g}", ha="center", va="center", fontsize=9, zorder=4)
    else:
        points = [(math.log10(x), place(y)) for x, y in values]
        panel.scatter(*zip(*points), c=list(shade.values()), cmap=colors)
    for x, y in told.bad:
        panel.text(math.log10(x), place(y), "×", ha="center", va="center", color=GREY)
    sides = panel.get_xlim()
    for name, rule, dash in (("linear rule", told.linear, "-"), ("√κ rule", told.sqrt, "--")):
        if rule:
            along = [math.log10(x) for x, _ in rule], [place(y) for _, y in rule]
            panel.plot(*along, dash, color="#9b1d3f", linewidth=2, label=name)
    panel.set_xlim(sides)
    if told.linear:
        figure.legend(frameon=False, fontsize=9, ncols=2, loc="outside upper left")
    for axis, ends, names in ((panel.xaxis, xs, told.xs), (panel.yaxis, ys, told.ys)):
        every = -(-len(ends) // 10)
        axis.set_ticks(ends[::every], [f"{name:.3g}" if name < 1000 else f"{name:.6g}" for name in names[::every]])
    panel.set(xlabel=plain(str(study.lr)), ylabel=plain(told.name))
    return figure


def _curves(whole: Exhibit) -> Figure:
    shown_runs = whole.leading
    names = [name for name in PANELS if any(name in whole.curves[run.number] for run in shown_runs)]
    figure, panels = _figure(8, 1.2 + 1.9 * len(names), len(names))
    for run, color in zip(shown_runs, cycle(COLORS)):
        for panel, name in zip(panels, names):
            if points := whole.curves[run.number].get(name):
                label = plain(whole.study.name(whole.study.at(run, whole.study.settings)) or run.name)
                panel.plot(
                    *zip(*points),
                    "o-" if len(points) < 12 else "-",
                    markersize=4,
                    color=color,
                    linewidth=1.6,
                    label=label,
                )
    for panel, name in zip(panels, names):
        panel.set_ylabel(plain(PANELS[name] or whole.study.metric.replace("test/", "val/", 1)))
    panels[-1].set_xlabel("update")
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, fontsize=8, ncols=2, loc="outside upper left")
    return figure


def _parallel(whole: Exhibit) -> Figure:
    axes: Sequence[Any] = whole.parallel
    figure, (panel,) = _figure(max(6.0, 1.9 * len(axes)), 4)
    for i in sorted(range(len(whole.study.good)), key=lambda i: axes[-1].places[i]):
        rank = axes[-1].places[i]
        panel.plot(
            [axis.places[i] for axis in axes], color=blend(1 - rank), alpha=0.35 + 0.6 * rank**2, linewidth=1 + rank
        )
    for i, axis in enumerate(axes):
        panel.axvline(i, color=GREY, linewidth=0.8)
        for y, text in axis.ticks:
            panel.annotate(plain(text), (i, y), (4, 0), textcoords="offset points", fontsize=8, va="center")
    panel.set_xticks(range(len(axes)), [plain(axis.label) for axis in axes])
    panel.set_yticks([])
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.set_xlim(-0.2, len(axes) - 0.6)
    return figure


def _importance(told: Importance, labels: dict[str, str]) -> Figure:
    figure, (panel,) = _figure(7, 1.1 + 0.45 * len(told.shares))
    items = [(plain(labels.get(key, key)), *share) for key, share in told.shares.items()][::-1]
    names, means, low, high = zip(*items)
    reach = [[max(0.0, m - a) for m, a in zip(means, low)], [max(0.0, b - m) for m, b in zip(means, high)]]
    panel.barh(names, means, xerr=reach, color=COLORS[0], ecolor=GREY, height=0.55)
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    panel.set(xlabel="share of the variance", xlim=(0, None))
    return figure


def plain(text: str) -> str:
    """Text that is drawn as it is: matplotlib reads what stands between two dollars as mathematics."""
    return text.replace("$", r"\$")
