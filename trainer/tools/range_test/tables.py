"""The range test in words: what each rule suggests, what to paste, and what it does not say."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.lr.range_rules import Suggestion
from trainer.lr.range_test import Edge, Sweep
from trainer.tools.range_test.confirm import Confirmed
from trainer.tools.range_test.cyclic import Bounds

CAVEATS = (
    "An order of magnitude: what trains over these updates from the start, not what is best after the whole run.",
    "The best rate for validation was up to 1.75 decades below the best for training, most with Adam and noisy labels.",
    "It belongs to this batch, optimizer, weight decay, model and precision: measure again where one of them changes.",
)


def swept(sweeps: Sequence[Sweep], found: Mapping[int, Edge], of: str) -> list[str]:
    """A row for each seed: where it went, and where it broke."""
    rows = [("seed", "updates", "first loss", "lowest", f"at {of}", "edge")]
    for sweep in sweeps:
        count = f"{len(sweep.losses)} of {sweep.planned}"
        if (edge := found.get(sweep.seed)) is None:
            rows.append((str(sweep.seed), count, "", "", "", "none"))
        else:
            first, lowest, best, rate = (f"{value:.4g}" for value in (edge.first, edge.lowest, edge.best, edge.rate))
            rows.append((str(sweep.seed), count, first, lowest, best, rate))
    return _aligned(rows)


def suggested(told: Mapping[str, Suggestion], of: str) -> list[str]:
    """A row for each rule, ours first."""
    rows = [("rule", of, "interval", "source")]
    for one in told.values():
        if one.value is None or one.interval is None:
            rows.append((one.method, "none", "", one.source))
        else:
            low, high = one.interval
            kind = "bracket" if one.method.startswith("edge") else "seeds"
            rows.append((one.method, f"{one.value:.3g}", f"{low:.3g} … {high:.3g} ({kind})", one.source))
    return _aligned(rows)


def to_paste(one: Suggestion, words: Sequence[str]) -> list[str]:
    """What to do with our suggestion."""
    if one.refused:
        return [f"No suggestion: {one.refused}"]
    assert one.interval is not None
    caution = [f"CAUTION: {one.caution}"] if one.caution else []
    return [f"paste: {' '.join(words)}", *caution, "checked: " + "; ".join(one.checked) + ".", *CAVEATS]


def bounded(value: float, of: str) -> list[str]:
    """What the edge of another hyper-parameter says: a bound."""
    return [
        f"{of} breaks training at about {value:.4g}, within these updates and at the peak rate: an upper bound.",
        f"Nothing is suggested below it: no rule for {of} has been measured. Compare a few values in short runs.",
    ]


def tried(found: Confirmed, words: Sequence[str]) -> list[str]:
    """The short trainings, the winner and its margin."""
    rows = [("lr", f"{found.scored} after {found.updates} updates")]
    for trial in found.trials:
        seeds = f"  ({', '.join(f'{loss:.4g}' for loss in trial.losses)})" if len(trial.losses) > 1 else ""
        rows.append((f"{trial.rate:.3g}", f"{trial.mean:.4g}{seeds}"))
    best = found.winner
    how = f"wins by {100 * found.margin:.2g} % of its loss" if math.isfinite(found.margin) else "alone did not break"
    lines = [*_aligned(rows), f"{best.rate:.3g} {how}. paste: {' '.join(words)}"]
    if len(best.losses) == 1:
        lines.append("One seed: a margin of a few percent is none. --confirm-seeds 3 shows the spread.")
    if best is not found.trials[1]:
        side = "above" if best is found.trials[-1] else "below"
        lines.append(f"The winner is at the end of the bracket: the best may lie {side} it.")
    return lines


def cycled(found: Bounds, seeds: int, score: str, sign: float, words: Sequence[str]) -> list[str]:
    """Base and largest rate for cycles; `score` names what was watched, and `sign` is -1 where low is good."""
    return [
        f"cycles (Smith 2015, arXiv:1506.01186), median of {seeds} seeds, by {score}: base {found.base:.3g}, where it "
        f"leaves {sign * found.first:.3g}; highest {found.highest:.3g}, the last before it loses "
        f"{sign * found.best:.3g}.",
        f"Smith's rule of thumb has the base at a third to a quarter of the highest: {found.highest / 4:.3g} to "
        f"{found.highest / 3:.3g}.",
        f"paste: {' '.join(words)}",
    ]


def _aligned(rows: Sequence[Sequence[Any]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
