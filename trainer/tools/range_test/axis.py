"""The axis on which a sweep is read: momentum m as its memory, 1 / (1 - m) updates; all else as it is."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from trainer.lr import ConfigError
from trainer.lr.range_rules import Suggestion, suggestions
from trainer.lr.range_test import Edge, Sweep, edge, middle_rate


def memory(momentum: float) -> float:
    """Over how many updates a gradient is spread."""
    return 1.0 / (1.0 - momentum)


def momentum(memory: float) -> float:
    """The momentum of a memory; none below one update."""
    return max(0.0, 1.0 - 1.0 / memory)


def bound(found: Iterable[Edge], of: str) -> float:
    """The median of the edges on that axis."""
    rates = [one.rate for one in found]
    return momentum(middle_rate([memory(rate) for rate in rates])) if of == "momentum" else middle_rate(rates)


def read(sweeps: Sequence[Sweep], of: str) -> tuple[dict[int, Edge], dict[str, Suggestion]]:
    """The edge of each seed that has one, and what the rules suggest."""
    there: Callable[[float], float] = memory if of == "momentum" else float
    back: Callable[[float], float] = momentum if of == "momentum" else float
    spaced = [
        replace(one, rates=[there(rate) for rate in one.rates], broke=None if one.broke is None else there(one.broke))
        for one in sweeps
    ]
    found: dict[int, Edge] = {}
    for one in spaced:
        try:
            seen = edge(one)
        except ConfigError:
            continue
        found[one.seed] = replace(seen, best=back(seen.best), rate=back(seen.rate))
    told = {
        name: one
        if one.value is None or one.interval is None
        else replace(one, value=back(one.value), interval=(back(one.interval[0]), back(one.interval[1])))
        for name, one in suggestions(spaced).items()
    }
    return found, told
