"""A range test as a picture: each seed's losses, smoothed curves, edges, the bracket and what each rule suggests."""

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.lr.range_rules import Suggestion
from trainer.lr.range_test import Edge, Sweep, running_median

COLORS = ("#2a6f97", "#e07a1f", "#3a8f5c", "#9b3d6e", "#6b5ca5", "#8a7a2f")
GREY, OURS = "#8a8a8a", "#c1272d"


def draw(
    sweeps: Sequence[Sweep], found: Mapping[int, Edge], told: Mapping[str, Suggestion], axis: str, loss: str
) -> Figure:
    """Raw losses as dots, their running median as a line; the bracket of our rule as a band."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for i, sweep in enumerate(one.finite() for one in sweeps):
        color = COLORS[i % len(COLORS)]
        panel.plot(sweep.rates, sweep.losses, ".", color=color, markersize=3, alpha=0.45)
        panel.plot(
            sweep.rates,
            running_median(sweep.losses),
            color=color,
            linewidth=1.6,
            label=f"seed {sweep.seed}, median of 7",
        )
        if edge := found.get(sweep.seed):
            panel.axvline(edge.rate, color=color, linewidth=1, linestyle="--", label="its edge")
    low, high = _heights(sweeps)
    panel.set(xscale="log", xlabel=axis, ylabel=loss, ylim=(low, high))
    if seen := [rate for sweep in sweeps for rate in sweep.rates]:
        panel.set_xlim(min(seen), max(seen))
    ours = next(iter(told.values()), None)
    if ours and ours.interval:
        panel.axvspan(*ours.interval, color=OURS, alpha=0.1, linewidth=0, label="bracket")
    _marks(panel, told, high - low, low)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return figure


def _heights(sweeps: Sequence[Sweep]) -> tuple[float, float]:
    """The range of losses up to a little above the first ones: the tail of a curve that breaks has no end."""
    middles = [running_median(sweep.finite().losses) or [1.0] for sweep in sweeps]
    low, first = min(map(min, middles)), max(middle[0] for middle in middles)
    drop = max(first - low, 0.05 * abs(first), 1e-9)
    return low - 0.4 * drop, first + 0.45 * drop


def _marks(panel: object, told: Mapping[str, Suggestion], height: float, low: float) -> None:
    """What each rule suggests: a triangle in a row of its own at the foot of the picture."""
    shown = [(name, one) for name, one in told.items() if one.value is not None]
    for i, (name, one) in enumerate(shown):
        color = OURS if name.startswith("edge") else GREY
        y = low + height * 0.035 * (len(shown) - i)
        panel.plot([one.value], [y], marker="^", color=color, markersize=5, clip_on=False)  # type: ignore[attr-defined]
        panel.annotate(name, (one.value, y), xytext=(6, 0), textcoords="offset points", va="center",  # type: ignore[attr-defined]
                       color=color, fontsize=7)  # fmt: skip
