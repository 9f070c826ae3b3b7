"""Draws the Plotly figures of the report as PNGs with matplotlib, for a paper, a chat or a machine without a browser.

It knows the properties of Plotly that `figures` uses, and no others.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainer.tools.drawing import GREY, new_figure, plain
from trainer.tools.report.figures import PALE, Figure, Section, Trace
from trainer.tools.writable import write_new_file

DASHES = {"solid": "-", "dot": ":", "dash": "--"}
SHRUNK = 0.68
"""Points of a picture for a pixel of the page."""
PIXELS = 96
"""Pixels of the page for an inch of the picture."""


def save(sections: Sequence[Section], folder: Path) -> list[str]:
    """Write a picture for each section with a figure; their names."""
    drawn = {f"{one.name}.png": one.figure for one in sections if one.figure}
    for name, figure in drawn.items():
        write_new_file(folder / name, partial(draw(figure).savefig, dpi=120))
    return list(drawn)


def draw(figure: Figure) -> Any:
    """A figure as a matplotlib figure."""
    layout = figure["layout"]
    names = [name for name in layout if name.startswith("yaxis")]
    width = max(8.0, 1.9 * len(layout["xaxis"]["tickvals"])) if layout["xaxis"].get("side") == "top" else 8.0
    drawn, panels = new_figure(width, layout["height"] / PIXELS, rows=len(names))
    places = {name.replace("axis", ""): panel for name, panel in zip(names, panels)}
    for trace in figure["data"]:
        {"scatter": _scatter, "heatmap": _heatmap, "bar": _bars}[trace["type"]](places[trace["yaxis"]], trace)
    for name, panel in zip(names, panels):
        _axis(panel.yaxis, layout[name])
    _axis(panels[-1].xaxis, layout["xaxis"])
    for shape in layout["shapes"]:
        panel = places[shape["yref"]]
        if shape["x0"] == shape["x1"]:
            panel.axvline(shape["x0"], color=GREY, linewidth=0.8)
        else:
            panel.axhline(shape["y0"], color=GREY, linewidth=0.9, linestyle=":")
    for note in layout["annotations"]:
        _annotation(places[note["yref"].removesuffix(" domain")], note)
    if layout["showlegend"]:
        labels = [plain(trace["name"]) for trace in figure["data"] if trace["showlegend"]]
        handles = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels())}
        columns = max(1, min(len(labels), int(100 / max(map(len, labels), default=1))))
        look = {"loc": "outside upper left", "ncols": columns, "fontsize": 8, "frameon": False}
        drawn.legend([handles[label] for label in labels], labels, **look)
    drawn.align_ylabels(panels)
    return drawn


def _scatter(panel: Any, trace: Trace) -> None:
    line, marker = trace["line"], trace.get("marker", {})
    size = SHRUNK * marker.get("size", 0)
    symbol = "" if not marker else "x" if "symbol" in marker else "o"
    look = {
        "marker": symbol,
        "alpha": trace.get("opacity"),
        "label": plain(trace["name"]) if trace["showlegend"] else None,
    }
    if isinstance(marker.get("color"), list):
        panel.scatter(trace["x"], trace["y"], c=marker["color"], s=size**2, **look)
        return
    is_line = "lines" in trace["mode"]
    look |= {"color": line["color"] if is_line else marker["color"], "markersize": size}
    look |= {"linewidth": 0.85 * line["width"], "linestyle": DASHES[line["dash"]] if is_line else ""}
    spread = trace["error_y"]["array"] if "error_y" in trace else None
    panel.errorbar(trace["x"], trace["y"], spread, capsize=3, elinewidth=1.0, **look)


def _heatmap(panel: Any, trace: Trace) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shades = [[float("nan") if shade is None else shade for shade in row] for row in trace["z"]]
    look = {"cmap": LinearSegmentedColormap.from_list("pale", PALE), "vmin": 0, "vmax": 1}
    panel.pcolormesh(trace["x"], trace["y"], shades, shading="nearest", edgecolors="white", linewidth=2, **look)
    for y, row in zip(trace["y"], trace["text"]):
        for x, text in zip(trace["x"], row):
            panel.text(x, y, plain(text), ha="center", va="center", fontsize=9, zorder=4)


def _bars(panel: Any, trace: Trace) -> None:
    error = trace["error_x"]
    look = {"color": trace["marker"]["color"], "ecolor": error["color"], "height": trace["width"]}
    panel.barh(list(map(plain, trace["y"])), trace["x"], xerr=[error["arrayminus"], error["array"]], **look)


def _annotation(panel: Any, note: Mapping[str, Any]) -> None:
    """The title of a panel, the word on a level, or text at a point."""
    text = plain(note["text"])
    if note["yref"].endswith("domain"):
        panel.set_title(text, fontsize=9, loc="left", color=GREY)
    elif note.get("xref") == "paper":
        y = 10 ** note["y"] if panel.get_yscale() == "log" else note["y"]
        at = {"xycoords": panel.get_yaxis_transform(), "ha": "right", "va": "bottom"}
        panel.annotate(text, (1, y), color=GREY, fontsize=8, **at)
    else:
        look = {"textcoords": "offset points", "ha": note["xanchor"], "va": "center", "fontsize": 8}
        ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8}
        panel.annotate(text, (note["x"], note["y"]), (SHRUNK * note["xshift"], 0), bbox=ground, **look)


def _axis(side: Any, axis: Mapping[str, Any]) -> None:
    panel, name = side.axes, side.axis_name
    if axis.get("type") == "log":
        panel.set(**{f"{name}scale": "log"})
    side.set_label_text(plain(axis["title"]["text"]))
    if "tickvals" in axis:
        side.set_ticks(axis["tickvals"], list(map(plain, axis["ticktext"])))
        side.set_ticks([], minor=True)
    if "range" in axis:
        panel.set(**{f"{name}lim": axis["range"]})
    elif axis.get("rangemode") == "tozero":
        panel.set(**{f"{name}lim": (0, None)})
    if "tickformat" in axis:
        side.set_major_formatter(lambda value, _: format(value, axis["tickformat"]))
    if axis.get("side") == "top":
        side.tick_top()
        panel.spines[["bottom", "left"]].set_visible(False)
        side.set_tick_params(length=0)
    side.set_visible(axis.get("visible", True))
