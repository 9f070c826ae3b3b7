"""The pictures of the page, as plain Plotly figures; the page's script gives them the colours of its theme."""

from collections.abc import Sequence
from typing import Any

from trainer.tools.plan.picture import COLORS, GREY
from trainer.tools.report.importance import Importance
from trainer.tools.report.study import Study
from trainer.tools.report.views import Axis

Figure = dict[str, Any]
SCALE = ((0.0, "#2a6f97"), (0.35, "#5fa8a0"), (0.65, "#e9c46a"), (1.0, "#e07a1f"))
"""From the best to the worst, as lines."""
PALE = ((0.0, "#8fc1d9"), (0.35, "#b5d9cb"), (0.65, "#f3e0a6"), (1.0, "#efb08a"))
"""The same behind words."""


def figure(data: list[Any], height: int = 400, **layout: Any) -> Figure:
    """A figure with the margins that all have."""
    whole = {"height": height, "margin": {"l": 64, "r": 20, "t": 20, "b": 52}, "hovermode": "closest", **layout}
    return {"data": data, "layout": {"legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, **whole}}


def parallel(study: Study, axes: Sequence[Axis]) -> Figure:
    """A line for each run through all axes, coloured by its rank; the last axis is the metric."""
    data: list[Any] = []
    worst_first = sorted(range(len(study.good)), key=lambda i: axes[-1].places[i])
    for i in worst_first:
        rank = axes[-1].places[i]
        data.append(
            {
                "x": list(range(len(axes))),
                "y": [axis.places[i] for axis in axes],
                "mode": "lines",
                "showlegend": False,
                "line": {"color": blend(1 - rank), "width": 1.2 + 1.2 * rank},
                "opacity": 0.35 + 0.6 * rank**2,
                "customdata": [study.good[i].number] * len(axes),
                "name": f"run {study.good[i].name}",
                "hoverinfo": "name",
            }
        )
    notes = [
        {
            "x": i,
            "y": y,
            "text": escaped(text),
            "showarrow": False,
            "xanchor": "right" if i else "left",
            "xshift": -6 if i else 6,
            "font": {"size": 11},
        }
        for i, axis in enumerate(axes)
        for y, text in axis.ticks
    ]
    bars = [
        {"type": "line", "x0": i, "x1": i, "y0": 0, "y1": 1, "line": {"color": GREY, "width": 1}}
        for i in range(len(axes))
    ]
    x = {
        "tickvals": list(range(len(axes))),
        "ticktext": [escaped(axis.label) for axis in axes],
        "showgrid": False,
        "zeroline": False,
        "range": [-0.15, len(axes) - 0.85],
        "side": "top",
    }
    y = {"visible": False, "range": [-0.05, 1.05]}
    return figure(
        data, 400, xaxis=x, yaxis=y, annotations=notes, shapes=bars, margin={"l": 20, "r": 20, "t": 44, "b": 16}
    )


def importance(told: Importance, labels: dict[str, str]) -> Figure:
    """Bars with the spread between trees."""
    items = list(told.shares.items())[::-1]
    mean = [share[0] for _, share in items]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": mean,
        "y": [escaped(labels.get(key, key)) for key, _ in items],
        "marker": {"color": COLORS[0]},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [s[2] - s[0] for _, s in items],
            "arrayminus": [s[0] - s[1] for _, s in items],
            "thickness": 1.4,
            "color": GREY,
        },
        "hovertemplate": "%{x:.0%}<extra></extra>",
        "width": 0.55,
    }
    x = {"title": {"text": "share of the variance"}, "tickformat": ".0%", "rangemode": "tozero"}
    return figure([bars], 110 + 44 * len(items), xaxis=x, yaxis={"automargin": True, "type": "category"})


def blend(place: float) -> str:
    """The colour of a place between the best, 0, and the worst, 1."""
    place = min(1.0, max(0.0, place))
    upper = next(i for i, (end, _) in enumerate(SCALE) if i and place <= end)
    (a, low), (b, high) = SCALE[upper - 1], SCALE[upper]
    share = (place - a) / (b - a)
    mixed = (round((1 - share) * int(low[i : i + 2], 16) + share * int(high[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def escaped(text: str) -> str:
    """Text that Plotly shows as it is: it reads a little HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
