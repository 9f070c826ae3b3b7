"""The noise scale as text and as a picture: what was measured, the batches that it suggests, its caveats."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from trainer.measure.noise_scale import Estimate, optimal_lr_ratio
from trainer.tools.drawing import GREY, new_figure, series_color
from trainer.tools.noise_scale.probe import Point

GROUPS = 5
"""The most parameter groups of the picture."""

CAVEATS = (
    "B_simple estimates the critical batch for SGD and for the training loss: test scores are another question.",
    "It belongs to this learning rate: too low a rate makes it too large, in proportion. Tune the rate first.",
    "It takes all directions as equally curved: it has missed the critical batch by factors of 2 to 20, either way,",
    "and for Adam on large language models by orders of magnitude, too small (Merrill et al. 2025, arXiv:2505.23971).",
)


def format_points(points: Sequence[Point]) -> list[str]:
    """A row for each point, and one for each of its parameter groups where there are several."""
    rows = [("update", "lr", "parameters", "B_simple", "95 % interval", "|G|²", "tr(Σ)")]
    for point in points:
        estimates = list(point.estimates.items())
        for i, (name, found) in enumerate(estimates if len(estimates) > 2 else estimates[:1]):
            place = (f"{point.update:,}", f"{point.lr:.4g}") if i == 0 else ("", "")
            interval = f"{format_samples(found.low)} … {format_samples(found.high)}"
            if found.noise is None:
                interval = "" if found.low is None else f"above {format_samples(found.low)}"
            noise = "not resolved" if found.noise is None else format_samples(found.noise)
            rows.append((*place, name, noise, interval, f"{found.square:.3g}", f"{found.trace:.3g}"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return [*lines, *_unresolved(points)]


def _unresolved(points: Sequence[Point]) -> Iterator[str]:
    for point in points:
        found = estimate_of_net(point)
        if not found.resolved:
            needed = found.needed()
            more = f"--updates {needed:,} or so, or a larger --batch" if needed else "a larger --batch, then --updates"
            yield f"update {point.update:,} is not resolved, the interval of |G|² includes 0: try {more}."


def estimate_of_net(point: Point) -> Estimate:
    """The estimate for all parameters."""
    return next(iter(point.estimates.values()))


def advise(points: Sequence[Point], batch: int) -> dict[str, Any] | None:
    """What a few batch sizes cost by the noise scale; `batch` is that of the run. None where no point is resolved."""
    found = [scale for point in points if (scale := estimate_of_net(point).noise) is not None]
    if not found:
        return None
    mean = sum(found) / len(found)
    sizes = [("a quarter of B_simple", mean / 4), ("B_simple", mean), ("four times B_simple", 4 * mean)]
    rows = [
        {
            "what": what,
            "batch": size,
            "updates": 1 + mean / size,
            "samples": 1 + size / mean,
            "lr": optimal_lr_ratio(mean, size, batch),
        }
        for what, size in [*sizes, ("this run", float(batch))]
        if mean > 0
    ]
    ends = {"lowest": min(found), "highest": max(found)}
    return {"noise": mean, **ends, "resolved": len(found), "points": len(points), "batches": rows}


def format_advice(found: dict[str, Any] | None, batch: int) -> list[str]:
    """The advice as lines, with its caveats."""
    if found is None:
        return ["No advice: |G|² is not resolved at any point, so there is no noise scale to go by."]
    of = f"{found['resolved']} of {found['points']} points" if found["resolved"] < found["points"] else "the points"
    lines = [
        f"B_simple is {format_samples(found['noise'])} samples, the mean of {of} ({format_samples(found['lowest'])} to "
        f"{format_samples(found['highest'])}). To the same training loss, in theory:",
        f"{'batch':>8}  {'updates':>8}  {'samples':>8}  {'lr, SGD':>8}",
    ]
    for row in found["batches"]:
        factors = "  ".join(_times(row[name]) for name in ("updates", "samples", "lr"))
        lines.append(f"{format_samples(row['batch']):>8}  {factors}  {row['what']}")
    return [
        *lines,
        "Updates and samples are multiples of the fewest possible, the lr of that at this run's batch.",
        f"A range to choose from: {format_samples(found['noise'] / 4)} to {format_samples(4 * found['noise'])}. "
        "Below it a larger batch saves updates almost for free; above it, it hardly saves any.",
        "To move the rate by this rule: scaling=critical "
        f"scaling.base_batch_size={batch} scaling.noise_batch={format_samples(found['noise']).replace(',', '')}",
        *CAVEATS,
    ]


def format_samples(value: float | None) -> str:
    """A number of samples with three digits."""
    if value is None:
        return ""
    if abs(value) < 100:
        return f"{value:.3g}"
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.0f}"


def _times(value: float) -> str:
    return f"{value:>7.3g}×"


def draw(points: Sequence[Point], batch: int, total: int) -> Any:
    """B_simple with its interval at each point, of all parameters and of up to five groups: a matplotlib figure."""
    from matplotlib.ticker import LogFormatter

    figure, (panel,) = new_figure(8, 4.2)
    names = list(points[0].estimates)
    names = names[: GROUPS + 1] if len(names) > 2 else names[:1]
    for i, name in enumerate(names):
        _curve(panel, points, name, series_color(i), i * total / 120, bold=i == 0)
    panel.axhline(batch, color=GREY, linewidth=1, linestyle=":")
    panel.annotate(f"batch of the run, {batch:,}", (1, batch), xycoords=panel.get_yaxis_transform(),
                   ha="right", va="bottom", color=GREY, fontsize=9)  # fmt: skip
    panel.set(xlabel="update", ylabel="B_simple, samples", yscale="log", xlim=(-0.03 * total, 1.03 * total))
    panel.yaxis.set_major_formatter("{x:,.0f}")
    panel.yaxis.set_minor_formatter(LogFormatter())
    panel.xaxis.set_major_formatter("{x:,.0f}")
    panel.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _curve(panel: Any, points: Sequence[Point], name: str, color: str, shift: float, bold: bool) -> None:
    """A dot with its interval where the scale is resolved; else an arrow up from its lower bound."""
    estimates = [(point.update + shift, point.estimates[name]) for point in points if name in point.estimates]
    dots = [(x, one.noise, one.low or 0.0, one.high or 0.0) for x, one in estimates if one.noise and one.noise > 0]
    panel.errorbar(
        [x for x, *_ in dots],
        [noise for _, noise, _, _ in dots],
        yerr=[[y - max(low, y / 100) for _, y, low, _ in dots], [high - y for _, y, _, high in dots]],
        color=color, fmt="o-" if bold else "o", markersize=5 if bold else 3.5, linewidth=1.8 if bold else 1.2,
        capsize=3, label=name, alpha=1.0 if bold else 0.8,
    )  # fmt: skip
    for x, one in estimates:
        if one.noise is None and one.low is not None:
            panel.plot([x], [one.low], marker="^", color=color, markersize=8, fillstyle="none")
            if bold:
                panel.annotate("not resolved,\nabove this", (x, one.low), xytext=(-8, 0), textcoords="offset points",
                               color=color, fontsize=8, va="center", ha="right")  # fmt: skip
