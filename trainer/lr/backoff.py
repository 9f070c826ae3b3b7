"""The backoff factor: after a rollback the learning rate starts lower, and returns to the curve."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from trainer.lr.bounds import integer, positive_share

ROLLBACK = "rollback"
"""The rule of a segment in the history of a curve that lowers the rate after a rollback."""


class Backoff(NamedTuple):
    """A rollback to update `begin`: the factor there, and the updates over which it returns to 1; 0: it stays."""

    begin: int
    factor: float
    rewarm: int = 0


def backoff(t: int, rollbacks: Sequence[Backoff]) -> float:
    """backoff(t) = f + (1 - f) · min(1, (t - b) / R) after a rollback to update b; 1 before the first one.

    Of several rollbacks, the last one that lies at or before `t` counts: it has replaced what came after its update.
    f is the factor at b, and R the number of updates over which it returns to 1; with R = 0 it stays f.

    >>> rollbacks = [Backoff(100, 0.5, rewarm=50)]
    >>> [backoff(t, rollbacks) for t in (99, 100, 125, 150)]
    [1.0, 0.5, 0.75, 1.0]
    """
    for begin, factor, rewarm in reversed(rollbacks):
        if begin <= t:
            share = min(1.0, (t - begin) / rewarm) if rewarm else 0.0
            return factor + (1.0 - factor) * share
    return 1.0


def after_rollback(begin: int, factor: float, rewarm: int, rollbacks: Sequence[Backoff]) -> Backoff:
    """The next rollback: it multiplies the factor that holds at update `begin` by `factor`."""
    positive_share("guard.backoff", factor, "it multiplies the learning rate after a rollback; try 0.5, or 1.")
    integer("guard.rewarm", rewarm, "it is the updates over which backoff returns to 1, or 0 for never.", low=0)
    return Backoff(begin, factor * backoff(begin, rollbacks), rewarm)


def rollbacks(history: Iterable[Mapping[str, Any]], batch_size: int) -> list[Backoff]:
    """The rollbacks in the history of a curve (see `trainer.resume.curve_history`), in updates of `batch_size`."""
    found = (segment for segment in history if segment["rule"] == ROLLBACK)
    return [Backoff(segment["samples"] // batch_size, segment["factor"], segment["rewarm"]) for segment in found]
