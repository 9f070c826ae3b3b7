"""The noise scale in words: what was measured, which batches it speaks for, and what it does not say."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from trainer.measure.noise_scale import Estimate, optimal_lr_ratio
from trainer.tools.noise_scale.probe import Point

CAVEATS = (
    "B_simple estimates the critical batch for SGD and for the training loss: test scores are another question.",
    "It belongs to this learning rate: too low a rate makes it too large, in proportion. Tune the rate first.",
    "It takes all directions as equally curved: it has missed the critical batch by factors of 2 to 20, either way,",
    "and for Adam on large language models by orders of magnitude, too small (Merrill et al. 2025, arXiv:2505.23971).",
)


def measured(points: Sequence[Point]) -> list[str]:
    """A row for each point, and one for each of its parameter groups where there are several."""
    rows = [("update", "lr", "parameters", "B_simple", "95 % interval", "|G|²", "tr(Σ)")]
    for point in points:
        told = list(point.estimates.items())
        for i, (name, found) in enumerate(told if len(told) > 2 else told[:1]):
            place = (f"{point.update:,}", f"{point.lr:.4g}") if i == 0 else ("", "")
            interval = f"{short(found.low)} … {short(found.high)}"
            if found.noise is None:
                interval = "" if found.low is None else f"above {short(found.low)}"
            noise = "not resolved" if found.noise is None else short(found.noise)
            rows.append((*place, name, noise, interval, f"{found.square:.3g}", f"{found.trace:.3g}"))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return [*lines, *_unresolved(points)]


def _unresolved(points: Sequence[Point]) -> Iterator[str]:
    for point in points:
        found = whole_net(point)
        if not found.resolved:
            needed = found.needed()
            more = f"--updates {needed:,} or so, or a larger --batch" if needed else "a larger --batch, then --updates"
            yield f"update {point.update:,} is not resolved, the interval of |G|² includes 0: try {more}."


def whole_net(point: Point) -> Estimate:
    """The estimate for all parameters."""
    return next(iter(point.estimates.values()))


def advice(points: Sequence[Point], batch: int) -> dict[str, Any] | None:
    """What the noise scale says of batches for this run, which has `batch`; None where no point is resolved."""
    found = [scale for point in points if (scale := whole_net(point).noise) is not None]
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


def advised(told: dict[str, Any] | None, batch: int) -> list[str]:
    """The advice as lines, with its caveats."""
    if told is None:
        return ["No advice: |G|² is not resolved at any point, so there is no noise scale to go by."]
    of = f"{told['resolved']} of {told['points']} points" if told["resolved"] < told["points"] else "the points"
    lines = [
        f"B_simple is {short(told['noise'])} samples, the mean of {of} ({short(told['lowest'])} to "
        f"{short(told['highest'])}). To the same training loss, in theory:",
        f"{'batch':>8}  {'updates':>8}  {'samples':>8}  {'lr, SGD':>8}",
    ]
    for row in told["batches"]:
        numbers = f"{short(row['batch']):>8}  {_times(row['updates'])}  {_times(row['samples'])}  {_times(row['lr'])}"
        lines.append(f"{numbers}  {row['what']}")
    return [
        *lines,
        "Updates and samples are multiples of the fewest possible, the lr of that at this run's batch.",
        f"A range to choose from: {short(told['noise'] / 4)} to {short(4 * told['noise'])}. "
        "Below it a larger batch saves updates almost for free; above it, it hardly saves any.",
        "To move the rate by this rule: scaling=critical "
        f"scaling.base_batch_size={batch} scaling.noise_batch={short(told['noise']).replace(',', '')}",
        *CAVEATS,
    ]


def short(value: float | None) -> str:
    """A number of samples with as many digits as it is worth: three."""
    if value is None:
        return ""
    if abs(value) < 100:
        return f"{value:.3g}"
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.0f}"


def _times(value: float) -> str:
    return f"{value:>7.3g}×"
