"""The three estimates of the critical batch, as a picture."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from experiments.critical.hyperbola import CriticalBatch, Fit
from experiments.critical.trail import Point

COLORS = ("#2a6f97", "#3a8f5c", "#e07a1f")
GREY = "#8a8a8a"


def save(path: Path, found: Sequence[CriticalBatch], points: Sequence[Point]) -> None:
    """Updates by batch, best rate by batch, and B_simple as the loss falls; a diamond at each critical batch."""
    figure = Figure(figsize=(13.0, 4.3), layout="constrained")
    FigureCanvasAgg(figure)
    steps, rates, simple = figure.subplots(1, 3)
    for place, (one, color) in enumerate(zip(found, COLORS)):
        name = f"to a loss of {one.target:.2f}"
        _law(steps, {b: best.steps for b, best in one.best.items()}, one.steps, color, name)
        _law(rates, {b: best.lr for b, best in one.best.items()}, one.rate, color, name)
        _mark_critical(steps, one.steps, color, (8, 4), "left")
        low = one.target < found[0].target  # the curves of low losses overlap, so their numbers are moved apart
        _mark_critical(rates, one.rate, color, (9, -6 - 13 * place) if low else (-9, 4), "left" if low else "right")
    steps.set(title="updates: $S(B) = S_{min}\\,(1 + B_{crit}/B)$", ylabel="updates")
    rates.set(title="best rate: $\\eta(B) = \\eta_{max}\\,/\\,(1 + B_{noise}/B)$", ylabel="learning rate")
    for panel in (steps, rates):
        panel.set(xscale="log", yscale="log", xlabel="batch")
        _ticks(panel.xaxis, [2, 8, 32, 128, 512], "{:g}".format)
    _ticks(steps.yaxis, [3, 10, 30, 100, 300, 1000], "{:g}".format)
    _ticks(rates.yaxis, [0.03, 0.1, 0.3, 1, 3], "{:g}".format)
    steps.legend(frameon=False, fontsize=9)
    steps.annotate("◇ twice the fewest updates: $B_{crit}$", (0.03, 0.03), xycoords="axes fraction", fontsize=9)
    rates.annotate(
        "◇ half the largest rate: $B_{noise}$", (0.97, 0.03), xycoords="axes fraction", fontsize=9, ha="right"
    )
    _along(simple, found, points)
    for panel in figure.axes:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _law(panel: Any, points: dict[int, float], law: Callable[[float], float], color: str, name: str) -> None:
    dense = [min(points) * (max(points) / min(points)) ** (i / 100) for i in range(101)]
    panel.plot(dense, [law(batch) for batch in dense], color=color, linewidth=1.5, alpha=0.8)
    panel.plot(list(points), list(points.values()), "o", color=color, markersize=5, label=name)


def _mark_critical(panel: Any, law: Fit, color: str, shift: tuple[int, int], side: str) -> None:
    """Mark the critical batch: twice the fewest updates, half the largest rate."""
    x, y = law.batch, law(law.batch)
    panel.plot([x], [y], "D", color="white", markeredgecolor=color, markeredgewidth=1.8, markersize=8, zorder=3)
    panel.annotate(f"{x:.0f}", (x, y), xytext=shift, textcoords="offset points", color=color, fontsize=10,
                   weight="bold", ha=side)  # fmt: skip


def _along(panel: Any, found: Sequence[CriticalBatch], points: Sequence[Point]) -> None:
    """The exact values as dots over the loss, the estimates as dots with their intervals."""
    panel.plot([p.loss for p in points], [p.exact for p in points], "o", color=GREY, markersize=3, alpha=0.35,
               markeredgewidth=0, label="exact, before every update")  # fmt: skip
    estimates = [(p.loss, p.estimate) for p in points if p.estimate and p.estimate.noise]
    noise = [one.noise or 0.0 for _, one in estimates]
    panel.errorbar(
        [loss for loss, _ in estimates], noise,
        yerr=[[y - (one.low or 0) for y, (_, one) in zip(noise, estimates)],
              [(one.high or 0) - y for y, (_, one) in zip(noise, estimates)]],
        color="#222222", fmt="o", markersize=3, linewidth=1, capsize=2, label="estimated, 95 % interval",
    )  # fmt: skip
    for one, color in zip(found, COLORS):
        panel.axhline(one.steps.batch, color=color, linewidth=1.2, linestyle="--")
        panel.annotate(f"B_crit to {one.target:.2f}", (1, one.steps.batch), xycoords=panel.get_yaxis_transform(),
                       xytext=(2, 0), textcoords="offset points", color=color, fontsize=8, va="center")  # fmt: skip
        panel.axvline(one.target, color=color, linewidth=0.8, linestyle=":")
    panel.set(title="$B_{simple} = tr(\\Sigma)\\,/\\,|G|^2$ as the loss falls", xlabel="loss of the training set",
              ylabel="samples", xscale="log", yscale="log")  # fmt: skip
    panel.invert_xaxis()
    _ticks(panel.xaxis, [2, 1, 0.4, 0.15, 0.08], "{:g}".format)
    _ticks(panel.yaxis, [10, 30, 100, 300, 1000, 3000], "{:g}".format)
    panel.legend(frameon=False, fontsize=9)


def _ticks(axis: Any, places: list[float], shown: Callable[[float], str]) -> None:
    axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))
