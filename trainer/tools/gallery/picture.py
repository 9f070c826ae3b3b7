"""A curve as a small picture: the same axes for all, and the same bytes for the same curve."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from trainer.lr import Plan

WIDTH, HEIGHT = 320, 140
BLUE, ORANGE, GREY, DARK = "#2a6f97", "#e07a1f", "#b5b5b5", "#555555"
TOP = 1.1
_STYLE: Any = {
    "svg.hashsalt": "gallery",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial"],
    "font.size": 7,
    "axes.linewidth": 0.6,
    "path.simplify": True,
}
_NOTHING = {"Date": None, "Creator": None, "Format": None, "Type": None}


def picture(plan: Plan, floor: float = 0.0) -> bytes:
    """The learning rates of a plan as shares of the peak, and another hyper-parameter in orange, as SVG."""
    with rc_context(_STYLE):
        figure = drawn(plan, floor)
        file = BytesIO()
        FigureCanvasSVG(figure).print_svg(file, metadata=_NOTHING)
    return b"\n".join(line.rstrip() for line in file.getvalue().splitlines()) + b"\n"


def drawn(plan: Plan, floor: float = 0.0) -> Figure:
    """The picture as a figure."""
    figure = Figure(figsize=(WIDTH / 96, HEIGHT / 96), facecolor="white")
    hyper_schedules = {
        name: values for name, values in plan.hyper_schedules.items() if len(set(next(iter(values.values())))) > 1
    }
    panel = figure.add_axes((0.085, 0.14, 0.81 if hyper_schedules else 0.885, 0.82))
    _axes(panel, plan, floor)
    peak = plan.policy.peak_lr
    shares = [[rate / peak for rate in rates] for rates in plan.curves.values()]
    distinct = [curve for i, curve in enumerate(shares) if curve not in shares[:i]]
    for curve, color in reversed(list(zip(distinct, (BLUE, ORANGE)))):
        panel.plot(curve, color=color, linewidth=1.5, solid_joinstyle="round", clip_on=False)
    panel.set_ylim(0, max(TOP, 1.02 * max(map(max, distinct))))
    for name, values in list(hyper_schedules.items())[:1]:
        _second_axis(panel, name, next(iter(values.values())))
    return figure


def _axes(panel: Any, plan: Plan, floor: float) -> None:
    """Axes from 0 to the peak and over the run, the warm-up as a band, peak and floor as lines."""
    total, width = plan.horizon.total, plan.policy.warmup.updates
    if width:
        panel.axvspan(0, width - 1, color=BLUE, alpha=0.1, linewidth=0)
    for level in (1.0, floor):
        if level:
            panel.axhline(level, color=GREY, linewidth=0.6, linestyle=(0, (2, 3)), zorder=0)
    panel.set_xlim(0, total)
    panel.set_xticks([0, total // 4, total // 2, 3 * total // 4, total])
    panel.set_yticks([0, *([floor] if 0.08 <= floor < 0.9 else []), 1])
    panel.yaxis.set_major_formatter("{x:g}")
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(GREY)
    panel.tick_params(colors=DARK, width=0.6, length=2, pad=2, color=GREY)


def _second_axis(panel: Any, name: str, values: Sequence[float]) -> None:
    """Another hyper-parameter on an axis of its own, at the right."""
    side = panel.twinx()
    side.plot(values, color=ORANGE, linewidth=1.5, linestyle=(0, (3, 1)), clip_on=False)
    low, high = min(values), max(values)
    base = 0.0 if low < 0.5 * high else low
    side.set_ylim(base, base + (high - base) * TOP)
    side.set_yticks([base, high], [f"{base:.3g}", f"{high:.3g}"])
    side.text(0.98, 1.02, name.replace("_", " "), transform=side.transAxes, color=ORANGE, ha="right", va="top")
    side.spines[["top", "left", "bottom", "right"]].set_visible(False)
    side.tick_params(colors=ORANGE, width=0.6, length=2, pad=2, color=GREY)
