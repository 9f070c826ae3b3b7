"""The range test as text and as a picture: sweeps, the suggestion of each rule, overrides to paste, caveats."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.lr.range_rules import OURS, Suggestion
from trainer.lr.range_test import Edge, Sweep, running_median
from trainer.tools.drawing import GREY, new_figure, series_color
from trainer.tools.range_test.confirm import Confirmation
from trainer.tools.range_test.readings import CycleBounds

RED = "#c1272d"
"""The colour of our own rule."""

CAVEATS = (
    "An order of magnitude: what trains over these updates from the start, not what is best after the whole run.",
    "On 70 tasks it was up to 1.9 decades off the best rate of the whole run: cadence tune trains, and finds that one.",
    "It belongs to this batch, optimizer, weight decay, model and precision: measure again where one of them changes.",
)


def format_sweeps(sweeps: Sequence[Sweep], edges: Mapping[int, Edge], of: str) -> list[str]:
    """A row for each seed: its lowest loss, and the rate at which training broke."""
    rows = [("seed", "updates", "first loss", "lowest", f"at {of}", "edge")]
    for sweep in sweeps:
        count = f"{len(sweep.losses)} of {sweep.planned}"
        if (edge := edges.get(sweep.seed)) is None:
            rows.append((str(sweep.seed), count, "", "", "", "none"))
        else:
            first, lowest, best, rate = (f"{value:.4g}" for value in (edge.first, edge.lowest, edge.best, edge.rate))
            rows.append((str(sweep.seed), count, first, lowest, best, rate))
    return _align(rows)


def format_dead(sweeps: Sequence[Sweep]) -> list[str]:
    """The weights that got no gradient in any seed."""
    dead = sorted(set.intersection(*(set(one.dead) for one in sweeps)))
    if not dead:
        return []
    names = ", ".join(dead[:4]) + (", …" if len(dead) > 4 else "")
    return [f"CAUTION: {len(dead)} weights got no gradient but 0: {names}. A part of the net is dead or unused."]


def format_suggestions(suggested: Mapping[str, Suggestion], of: str) -> list[str]:
    """A row for each rule, ours first."""
    rows = [("rule", of, "interval", "source")]
    for one in suggested.values():
        if one.value is None or one.interval is None:
            rows.append((one.method, "none", "", one.source))
        else:
            low, high = one.interval
            kind = "bracket" if one.method == OURS else "seeds"
            rows.append((one.method, f"{one.value:.3g}", f"{low:.3g} … {high:.3g} ({kind})", one.source))
    return _align(rows)


def format_overrides(one: Suggestion, overrides: Sequence[str]) -> list[str]:
    """The overrides of our suggestion, with what was checked and the caveats."""
    if one.refused:
        return [f"No suggestion: {one.refused}"]
    assert one.interval is not None
    caution = [f"CAUTION: {one.caution}"] if one.caution else []
    return [f"paste: {' '.join(overrides)}", *caution, "checked: " + "; ".join(one.checked) + ".", *CAVEATS]


def format_bound(value: float, of: str) -> list[str]:
    """The edge of another hyper-parameter, as an upper bound."""
    return [
        f"{of} breaks training at about {value:.4g}, within these updates and at the peak rate: an upper bound.",
        f"Nothing is suggested below it: no rule for {of} has been measured. Compare a few values in short runs.",
    ]


def format_confirmation(found: Confirmation, overrides: Sequence[str]) -> list[str]:
    """The short trainings, the winner and its margin."""
    rows = [("lr", f"{found.scored} after {found.updates} updates")]
    for trial in found.trials:
        seeds = f"  ({', '.join(f'{loss:.4g}' for loss in trial.losses)})" if len(trial.losses) > 1 else ""
        rows.append((f"{trial.rate:.3g}", f"{trial.mean:.4g}{seeds}"))
    best = found.winner
    how = f"wins by {100 * found.margin:.2g} % of its loss" if math.isfinite(found.margin) else "alone did not break"
    lines = [*_align(rows), f"{best.rate:.3g} {how}. paste: {' '.join(overrides)}"]
    if len(best.losses) == 1:
        lines.append("One seed: a margin of a few percent means nothing. --confirm-seeds 3 shows the spread.")
    if best is not found.trials[1]:
        which, side = ("highest", "above") if best is found.trials[-1] else ("lowest", "below")
        lines.append(f"The winner is the {which} of the three: the best may lie {side} it.")
    return lines


def format_cycles(found: CycleBounds, seeds: int, score: str, sign: float, overrides: Sequence[str]) -> list[str]:
    """Base and largest rate for cycles; `score` names what was watched, and `sign` is -1 where low is good."""
    return [
        f"cycles (Smith 2015, arXiv:1506.01186), {'1 seed' if seeds == 1 else f'median of {seeds} seeds'}, by {score}: "
        f"base {found.base:.3g}, where it begins to improve on {sign * found.first:.3g}; highest {found.highest:.3g}, "
        f"before it falls from its best, {sign * found.best:.3g}.",
        f"Smith's rule of thumb has the base at a third to a quarter of the highest: {found.highest / 4:.3g} to "
        f"{found.highest / 3:.3g}.",
        f"paste: {' '.join(overrides)}",
    ]


def _align(rows: Sequence[Sequence[Any]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def draw(
    sweeps: Sequence[Sweep], edges: Mapping[int, Edge], suggested: Mapping[str, Suggestion], axis: str, loss: str
) -> Any:
    """Losses as dots, their running median as a line, the bracket of our rule as a band: a matplotlib figure."""
    figure, (panel,) = new_figure(8, 4.6)
    for i, sweep in enumerate(one.finite() for one in sweeps):
        color = series_color(i)
        panel.plot(sweep.rates, sweep.losses, ".", color=color, markersize=3, alpha=0.45)
        panel.plot(
            sweep.rates,
            running_median(sweep.losses),
            color=color,
            linewidth=1.6,
            label=f"seed {sweep.seed}, median of 7",
        )
        if edge := edges.get(sweep.seed):
            panel.axvline(edge.rate, color=color, linewidth=1, linestyle="--", label="its edge")
    low, high = _heights(sweeps)
    panel.set(xscale="log", xlabel=axis, ylabel=loss, ylim=(low, high))
    if seen := [rate for sweep in sweeps for rate in sweep.rates]:
        panel.set_xlim(min(seen), max(seen))
    ours = next(iter(suggested.values()), None)
    if ours and ours.interval:
        panel.axvspan(*ours.interval, color=RED, alpha=0.1, linewidth=0, label="bracket")
    _draw_suggestions(panel, suggested, high - low, low)
    panel.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    return figure


def _heights(sweeps: Sequence[Sweep]) -> tuple[float, float]:
    """The range of losses up to a little above the first ones: the tail of a curve that diverges is cut off."""
    middles = [running_median(sweep.finite().losses) or [1.0] for sweep in sweeps]
    low, first = min(map(min, middles)), max(middle[0] for middle in middles)
    drop = max(first - low, 0.05 * abs(first), 1e-9)
    return low - 0.4 * drop, first + 0.45 * drop


def _draw_suggestions(panel: Any, suggested: Mapping[str, Suggestion], height: float, low: float) -> None:
    """The suggestion of each rule: a triangle in a row of its own at the foot of the picture."""
    shown = [(name, one) for name, one in suggested.items() if one.value is not None]
    for i, (name, one) in enumerate(shown):
        color = RED if name == OURS else GREY
        y = low + height * 0.035 * (len(shown) - i)
        panel.plot([one.value], [y], marker="^", color=color, markersize=5, clip_on=False)
        panel.annotate(name, (one.value, y), xytext=(6, 0), textcoords="offset points", va="center",
                       color=color, fontsize=7)  # fmt: skip
