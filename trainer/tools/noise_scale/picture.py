"""The noise scale along a run, as a picture."""

from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from trainer.tools.noise_scale.probe import Point

COLORS = ("#2a6f97", "#e07a1f", "#3a8f5c", "#9b3d6e", "#6b5ca5", "#8a7a2f")
GREY = "#8a8a8a"
GROUPS = 5


def draw(points: Sequence[Point], batch: int, total: int) -> Figure:
    """B_simple with its interval at each point: of all parameters, and of up to five groups beside it."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    names = list(points[0].estimates)
    names = names[: GROUPS + 1] if len(names) > 2 else names[:1]
    for i, name in enumerate(names):
        _curve(panel, points, name, COLORS[i], i * total / 120, bold=i == 0)
    panel.axhline(batch, color=GREY, linewidth=1, linestyle=":")
    panel.annotate(f"batch of the run, {batch:,}", (1, batch), xycoords=panel.get_yaxis_transform(),
                   ha="right", va="bottom", color=GREY, fontsize=9)  # fmt: skip
    panel.set(xlabel="update", ylabel="B_simple, samples", yscale="log", xlim=(-0.03 * total, 1.03 * total))
    panel.yaxis.set_major_formatter("{x:,.0f}")
    panel.yaxis.set_minor_formatter(LogFormatter())
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _curve(panel: Any, points: Sequence[Point], name: str, color: str, shift: float, bold: bool) -> None:
    """A dot with its interval where the scale is resolved; where it is not, an arrow up from the bound below it."""
    found = [(point.update + shift, point.estimates[name]) for point in points if name in point.estimates]
    dots = [(x, one.noise, one.low or 0.0, one.high or 0.0) for x, one in found if one.noise and one.noise > 0]
    panel.errorbar(
        [x for x, *_ in dots],
        [noise for _, noise, _, _ in dots],
        yerr=[[y - max(low, y / 100) for _, y, low, _ in dots], [high - y for _, y, _, high in dots]],
        color=color, fmt="o-" if bold else "o", markersize=5 if bold else 3.5, linewidth=1.8 if bold else 1.2,
        capsize=3, label=name, alpha=1.0 if bold else 0.8,
    )  # fmt: skip
    for x, one in found:
        if one.noise is None and one.low is not None:
            panel.plot([x], [one.low], marker="^", color=color, markersize=8, fillstyle="none")
            panel.annotate("not resolved,\nabove this", (x, one.low), xytext=(-8, 0), textcoords="offset points",
                           color=color, fontsize=8, va="center", ha="right") if bold else None  # fmt: skip
