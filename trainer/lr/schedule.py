"""A schedule is a pure function of the update `t`; its value is a share of the peak learning rate.

Every schedule runs over `x = t / span` in [0, 1), where `t = 0` is its first update (after a warm-up, or the first of
the run) and `span` the number of its updates. Past the end it holds its last value. Each is made by a function
`name(horizon, *, …)`.
"""

import math
from collections.abc import Callable, Iterable, Mapping

from trainer.lr.bounds import ConfigError, fraction

Schedule = Callable[[int], float]

FLOOR = "it is a share of the peak learning rate, from 0 to 1."
START = "it is the share of the peak at which the curve starts, from 0 to 1."


def annotate(schedule: Schedule, **places: Iterable[float]) -> Schedule:
    """`schedule`, annotated with updates that the plan lists and the lint rules use.

    `compose_schedule` makes a place between two updates the second of them.

    Args:
        schedule: a share of the peak at update t.
        jumps: updates at which the value jumps (a stair, a restart).
        knots: updates at which the curve bends (the end of a plateau, the peak of a cycle).
        ends: updates at which a cycle is complete, the first update after it.
        begin: the update at which a cooldown begins.
        noise: the update at which noise begins.
        unfreezes: the update until which the rate is 0 on purpose.
    """
    schedule.annotations = {kind: tuple(updates) for kind, updates in places.items()}  # type: ignore[attr-defined]
    return schedule


def annotations(schedule: Schedule) -> Mapping[str, tuple[int, ...]]:
    """The annotations of a schedule, by kind; none for a plain function."""
    return getattr(schedule, "annotations", {})


def with_range(schedule: Schedule, over: Callable[[range], list[float]]) -> Schedule:
    """`schedule` with `over`, which gives its values at all updates of a range in one call, the same to the bit."""
    schedule.over = over  # type: ignore[attr-defined]
    return schedule


def values(schedule: Schedule, ts: range) -> list[float]:
    """The value of a schedule at each update of a range."""
    over = getattr(schedule, "over", None)
    return list(map(schedule, ts)) if over is None else over(ts)


_STEEP = 0.01
SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1.0 - x,
    "cosine": lambda x: 0.5 * (1.0 + math.cos(math.pi * x)),
    "1-sqrt": lambda x: 1.0 - math.sqrt(x),
    "1-square": lambda x: 1.0 - x * x,
    "square": lambda x: (1.0 - x) ** 2,
    "exponential": lambda x: (_STEEP**x - _STEEP) / (1.0 - _STEEP),
}
"""How a decay falls from 1 at x = 0 to 0 at x = 1; exponential: (r^x - r) / (1 - r) with r = 0.01."""


def one_of(name: str, value: str, known: Mapping[str, Callable[[float], float]]) -> Callable[[float], float]:
    """The function that `known` has under the name `value`."""
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name}={value!r} is not known: choose one of {', '.join(known)}.")
    return known[value]


def falling(begin: float, end: float, shape: Callable[[float], float], floor: float) -> Schedule:
    """1 until update `begin`, then down along `shape` to `floor` at update `end`, then constant.

    m(t) = floor + (1 - floor) d(x), x = (t - begin) / (end - begin).
    """
    low, width = fraction("floor", floor, FLOOR), end - begin
    rest = 1.0 - low

    def factor(t: int) -> float:
        if t <= begin:
            return 1.0
        if t >= end:
            return low
        return low + rest * shape((t - begin) / width)

    def over(ts: range) -> list[float]:
        if ts.start <= begin or ts.stop > end:
            return list(map(factor, ts))
        if shape is SHAPES["linear"]:  # without a call for each update
            return [low + rest * (1.0 - (t - begin) / width) for t in ts]
        return [low + rest * shape((t - begin) / width) for t in ts]

    return with_range(factor, over)
