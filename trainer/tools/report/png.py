"""Draws the figures of the view model as PNGs with matplotlib, for a paper, a chat or a machine without a browser."""

from pathlib import Path
from typing import Any

from trainer.tools.drawing import GREY, new_figure, plain
from trainer.tools.report.view import PALE, Axis, Bars, Cells, Figure, Panel, Section, Series, View

DASHES = {"solid": "-", "dot": ":", "dash": "--"}
MARKS = {"dots": "o", "line": "", "line+dots": "o", "cross": "x"}
SHRUNK = 0.68
"""Points of a picture for a pixel of the page."""


def save(view: View, folder: Path) -> list[str]:
    """Write a picture for each figure of the view; their names."""
    figures = [one for one in (*view.claims, *view.sections) if one.figure]
    for section in figures:
        draw_section(section).savefig(folder / f"{section.name}.png", dpi=120)
    return [f"{section.name}.png" for section in figures]


def draw_section(section: Section) -> Any:
    """The figure of a section as a matplotlib figure."""
    assert section.figure is not None
    return draw(section.figure)


def draw(figure: Figure) -> Any:
    """A figure as a matplotlib figure."""
    drawn, panels = new_figure(*figure.inches, rows=len(figure.panels))
    for target, panel in zip(panels, figure.panels):
        _panel(target, panel)
    _axis(panels[-1], "x", figure.panels[-1].x)
    if figure.legend:
        handles = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels())}
        series = [one for panel in figure.panels for one in panel.series if one.in_legend]
        labels = [plain(one.name) for one in series]
        columns = max(1, min(len(labels), int(100 / max(map(len, labels), default=1))))
        place = {"loc": "outside upper left", "ncols": columns, "fontsize": 8, "frameon": False}
        drawn.legend([handles[label] for label in labels], labels, **place)
    drawn.align_ylabels(panels)
    return drawn


def _panel(target: Any, panel: Panel) -> None:
    if panel.cells:
        _cells(target, panel.cells)
    if panel.bars:
        _bars(target, panel.bars)
    for series in panel.series:
        _series(target, series)
    for words in panel.words:
        shift = {"left": 4, "right": -4}.get(words.anchor, 0)
        ground = None if words.hover else {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
        look = {"ha": words.anchor, "va": "center", "fontsize": 8, "color": words.color or "black", "bbox": ground}
        for x, y, text in words.items:
            target.annotate(plain(text), (x, y), (shift, 0), textcoords="offset points", **look)
    for x in panel.uprights:
        target.axvline(x, color=GREY, linewidth=0.8)
    for y, text in panel.levels:
        target.axhline(y, color=GREY, linewidth=0.9, linestyle=":")
        place = {"xycoords": target.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        target.annotate(plain(text), (1, y), color=GREY, fontsize=8, **place)
    if panel.title:
        target.set_title(plain(panel.title), fontsize=9, loc="left", color=GREY)
    _axis(target, "y", panel.y)


def _series(target: Any, series: Series) -> None:
    xs, ys = zip(*series.points) if series.points else ((), ())
    look = {"alpha": series.opacity, "label": plain(series.name) if series.in_legend else None}
    size = SHRUNK * series.size
    if series.colors:
        mark = "x" if series.mark == "cross" else "o"
        target.scatter(xs, ys, c=list(series.colors), marker=mark, s=size**2, **look)
        return
    line = DASHES[series.dash] if "line" in series.mark else ""
    style = {"marker": MARKS[series.mark], "markersize": size, "linewidth": 0.85 * series.width, "linestyle": line}
    if series.spread:
        target.errorbar(xs, ys, series.spread, color=series.color, capsize=3, elinewidth=1.0, **style, **look)
    else:
        target.plot(xs, ys, color=series.color, **style, **look)


def _cells(target: Any, cells: Cells) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shades = [[float("nan") if shade is None else shade for shade in row] for row in cells.shades]
    colors = LinearSegmentedColormap.from_list("pale", [color for _, color in PALE])
    look = {"cmap": colors, "vmin": 0, "vmax": 1, "edgecolors": "white", "linewidth": 2}
    target.pcolormesh(cells.xs, cells.ys, shades, shading="nearest", **look)
    for y, row in zip(cells.ys, cells.texts):
        for x, text in zip(cells.xs, row):
            target.text(x, y, plain(text), ha="center", va="center", fontsize=9, zorder=4)


def _bars(target: Any, bars: Bars) -> None:
    names, values, low, high = zip(*bars.items[::-1])
    reach = [[abs(end - value) for end, value in zip(ends, values)] for ends in (low, high)]
    target.barh(list(map(plain, names)), values, xerr=reach, color=bars.color, ecolor=bars.range_color, height=0.55)


def _axis(target: Any, side: str, axis: Axis) -> None:
    own = target.xaxis if side == "x" else target.yaxis
    if axis.log:
        target.set(**{f"{side}scale": "log"})
    if axis.title:
        target.set(**{f"{side}label": plain(axis.title)})
    if axis.ticks is not None:
        own.set_ticks([at for at, _ in axis.ticks], [plain(text) for _, text in axis.ticks])
        own.set_ticks([], minor=True)
    if axis.ends:
        target.set(**{f"{side}lim": axis.ends})
    elif axis.from_zero:
        target.set(**{f"{side}lim": (0, None)})
    if axis.percent:
        own.set_major_formatter(lambda value, _: f"{value:.0%}")
    if axis.on_top:
        own.tick_top()
        target.spines[["bottom", "left"]].set_visible(False)
        own.set_tick_params(length=0)
    own.set_visible(axis.visible)
