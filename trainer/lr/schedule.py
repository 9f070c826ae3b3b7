"""Schedules: pure functions of the update `t`, as a share of the peak learning rate.

Every schedule runs over `x = t / span` in [0, 1), where `t = 0` is the first update that the schedule owns
(after a warm-up, or the first of the run) and `span` the updates it has. Past the end it holds its last value.
"""

import math
from collections.abc import Callable, Iterable, Mapping

from trainer.lr.bounds import Refusal, fraction, positive
from trainer.lr.horizon import Duration, Horizon

Schedule = Callable[[int], float]

FLOOR = "it is a share of the peak learning rate, from 0 to 1."
_FLOOR = FLOOR


def mark(schedule: Schedule, **places: Iterable[int]) -> Schedule:
    """`schedule`, with the updates worth knowing of it: for the plan that lists them and the checks on the curve.

    jumps: updates from which on the value is another (a stair, a restart).
    knots: updates at which the curve bends (the end of a plateau, the peak of a cycle).
    ends: updates at which a cycle is complete, the first update after it.
    """
    schedule.marks = {kind: tuple(updates) for kind, updates in places.items()}  # type: ignore[attr-defined]
    return schedule


def marks(schedule: Schedule) -> Mapping[str, tuple[int, ...]]:
    """What `mark` has noted on a schedule: nothing, for a plain function."""
    return getattr(schedule, "marks", {})


def constant(horizon: Horizon) -> Schedule:
    """m(t) = 1.

    >>> constant(Horizon(10, 1))(7)
    1.0
    """
    return lambda t: 1.0


def linear(horizon: Horizon, *, floor: float = 0.0) -> Schedule:
    """m(t) = floor + (1 - floor) (1 - x).  Defazio et al. 2023, arXiv:2310.07831.

    >>> linear(Horizon(10, 1))(5)
    0.5
    """
    return _decay(horizon.span, horizon.span, "linear", floor)


def cosine(horizon: Horizon, *, floor: float = 0.0) -> Schedule:
    """m(t) = floor + (1 - floor) (1 + cos πx) / 2.  Loshchilov & Hutter 2016, arXiv:1608.03983.

    >>> cosine(Horizon(10, 1), floor=0.1)(5)
    0.55
    """
    return _decay(horizon.span, horizon.span, "cosine", floor)


def step(horizon: Horizon, *, every: Duration, gamma: float = 0.1, floor: float = 0.0) -> Schedule:
    """m(t) = max(floor, gamma^⌊t / every⌋).  He et al. 2015, arXiv:1512.03385.

    >>> [step(Horizon(9, 1), every=3)(t) for t in (0, 2, 3)]
    [1.0, 1.0, 0.1]
    """
    width = horizon.updates(every, "every", least=1)
    low = fraction("floor", floor, _FLOOR)
    if positive("gamma", gamma, "each step multiplies the learning rate by it.") > 1:
        raise Refusal(f"gamma={gamma!r} raises the learning rate at each step: give a value up to 1.")
    if width >= horizon.span:
        raise Refusal(f"every={every} is {width} updates, but the schedule has {horizon.span}: no step is made.")
    last = (horizon.span - 1) // width
    return lambda t: max(low, gamma ** min(t // width, last))


def wsd(horizon: Horizon, *, decay: Duration = "20%", shape: str = "1-sqrt", floor: float = 0.0) -> Schedule:
    """Warm-up, stable, decay: m(t) = 1, then over the last `decay` updates floor + (1 - floor) d(x).

    `shape` is d: "linear" 1 - x, "cosine" (1 + cos πx) / 2, "1-sqrt" 1 - √x.  Hägele et al. 2024, arXiv:2405.18392.

    >>> [wsd(Horizon(10, 1), decay=4, shape="linear")(t) for t in (0, 6, 8)]
    [1.0, 1.0, 0.5]
    """
    width = horizon.updates(decay, "decay", least=1)
    if width > horizon.span:
        raise Refusal(f"decay={decay} is {width} updates, but the schedule has {horizon.span}: shorten it.")
    return _decay(horizon.span, width, shape, floor)


SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1.0 - x,
    "cosine": lambda x: 0.5 * (1.0 + math.cos(math.pi * x)),
    "1-sqrt": lambda x: 1.0 - math.sqrt(x),
    "1-square": lambda x: 1.0 - x * x,
    "square": lambda x: (1.0 - x) ** 2,
    "exponential": lambda x: (_STEEP**x - _STEEP) / (1.0 - _STEEP),
}
"""How a decay falls from 1 at x = 0 to 0 at x = 1; exponential: (r^x - r) / (1 - r) with r = 0.01."""
_STEEP = 0.01


def _decay(span: int, width: int, shape: str, floor: float) -> Schedule:
    return falling(span - width, span, one_of("shape", shape, SHAPES), floor)


def one_of(name: str, value: str, known: Mapping[str, Callable[[float], float]]) -> Callable[[float], float]:
    """The function that `known` has for the word `value`."""
    if not isinstance(value, str) or value not in known:
        raise Refusal(f"{name}={value!r} is not known: choose one of {', '.join(known)}.")
    return known[value]


def falling(begin: int, end: int, shape: Callable[[float], float], floor: float) -> Schedule:
    """1 until update `begin`, then down along `shape` to `floor` at update `end`, and there for ever.

    m(t) = floor + (1 - floor) d(x), x = (t - begin) / (end - begin).
    """
    low, width = fraction("floor", floor, FLOOR), end - begin

    def factor(t: int) -> float:
        if t <= begin:
            return 1.0
        if t >= end:
            return low
        return low + (1.0 - low) * shape((t - begin) / width)

    return factor
