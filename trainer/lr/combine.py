"""Schedules made of schedules: one after another, multiplied, repeated, stretched.

Percentages in a part are of the part's own length.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from trainer.lr.bounds import ConfigError, integer, number, positive
from trainer.lr.compose import sub_horizon
from trainer.lr.cycles import geometric
from trainer.lr.horizon import Horizon
from trainer.lr.schedule import Schedule, annotate, annotations

Factory = Callable[[Horizon], Schedule]


def sequence(horizon: Horizon, *, parts: Sequence[Mapping[str, Any]]) -> Schedule:
    """m(t) = scale_i · m_i(t - b_i) for b_i ≤ t < b_{i+1}: one schedule after another.

    A part has `of` (its schedule), `duration` (without one, the last part takes the rest) and `scale` (by default 1).

    >>> half = lambda horizon: lambda t: 0.5
    >>> both = sequence(Horizon(10, 1), parts=[{"of": half, "duration": 4}, {"of": half, "scale": 0.2}])
    >>> [both(t) for t in (3, 4)]
    [0.5, 0.1]
    """
    if not parts:
        raise ConfigError(f"parts={parts!r} is empty: give a list of {{of: SCHEDULE, duration: UPDATES}}.")
    begins, made, begin = [], [], 0
    for i, entry in enumerate(parts):
        of, length, scale = _entry(horizon, i, entry, rest=int(horizon.span) - begin, last=i == len(parts) - 1)
        made.append(_scaled(of(sub_horizon(horizon, length)), scale))
        begins.append(begin)
        begin += length
    return _joined(begins, made, begin)


def product(horizon: Horizon, *, factors: Sequence[Factory]) -> Schedule:
    """m(t) = m_1(t) · m_2(t) · …: schedules multiplied, each over the whole span.

    >>> half = lambda horizon: lambda t: 0.5
    >>> product(Horizon(10, 1), factors=[half, half])(3)
    0.25
    """
    if not factors:
        raise ConfigError(f"factors={factors!r} is empty: give a list of schedules.")
    made = [factor(horizon) for factor in factors]
    kinds = {kind for one in made for kind in annotations(one)}
    places = {kind: sorted({t for one in made for t in annotations(one).get(kind, ())}) for kind in kinds}
    return annotate(lambda t: math.prod([one(t) for one in made]), **places)


def repeat(
    horizon: Horizon, *, of: Factory, cycles: int = 4, length_mult: float = 1.0, peak_mult: float = 1.0
) -> Schedule:
    """m(t) = peak_mult^i · m_i(t - b_i): a schedule `cycles` times, cycle i stretched by length_mult^i.

    >>> saw = repeat(Horizon(8, 1), of=lambda horizon: lambda t: 1 - t / horizon.span, cycles=2, peak_mult=0.5)
    >>> [saw(t) for t in (0, 2, 4, 6)]
    [1.0, 0.5, 0.5, 0.25]
    """
    integer("cycles", cycles, "give the number of repetitions.", low=1)
    positive("length_mult", length_mult, "it multiplies the length from cycle to cycle.")
    positive("peak_mult", peak_mult, "it multiplies the peak from cycle to cycle.")
    bounds = geometric(int(horizon.span), cycles, length_mult)
    made = [
        _scaled(of(sub_horizon(horizon, later - earlier)), peak_mult**i)
        for i, (earlier, later) in enumerate(zip(bounds, bounds[1:]))
    ]
    return _joined(bounds[:-1], made, int(horizon.span), ends=bounds[1:])


def stretch(horizon: Horizon, *, of: Factory, ratio: float = 1.0) -> Schedule:
    """m(t) = m_1(t / ratio): every duration of a schedule that is not a percentage lasts `ratio` times as long.

    >>> stretch(Horizon(100, 1), of=lambda horizon: lambda t: horizon.updates("20"), ratio=2.5)(0)
    50
    """
    positive("ratio", ratio, "durations are multiplied by it.")
    return of(replace(horizon, stretch=horizon.stretch * Fraction(str(ratio))))


def _entry(horizon: Horizon, i: int, entry: Any, rest: int, last: bool) -> tuple[Factory, int, float]:
    name = f"parts.{i}"
    if not isinstance(entry, Mapping) or not callable(entry.get("of")) or set(entry) - {"of", "duration", "scale"}:
        raise ConfigError(f"{name}={entry!r} is not a part: give of (a schedule), duration and, optionally, scale.")
    scale = number(f"{name}.scale", entry.get("scale", 1.0), "the part is multiplied by it.", low=0.0)
    if entry.get("duration") is None and not last:
        raise ConfigError(f"{name}.duration is not set: give one, only the last part may leave it out.")
    given = entry.get("duration")
    length = (
        rest if given is None else sub_horizon(horizon, int(horizon.span)).updates(given, f"{name}.duration", least=1)
    )
    if length < 1:
        raise ConfigError(
            f"{name} has no update left: shorten the parts before it, they take all {horizon.span} updates."
        )
    return entry["of"], length, scale


def _scaled(schedule: Schedule, scale: float) -> Schedule:
    return schedule if scale == 1.0 else annotate(lambda t: scale * schedule(t), **annotations(schedule))


def _joined(begins: list[int], made: list[Schedule], end: int, ends: Sequence[int] = ()) -> Schedule:
    """One schedule of several that begin at `begins`; past the end it holds the last one's value."""
    places: dict[str, list[int]] = {"jumps": [], "knots": [], "ends": list(ends)}
    for begin, schedule in zip(begins, made):
        for kind, updates in annotations(schedule).items():
            places.setdefault(kind, []).extend(begin + t for t in updates)
    places["jumps" if len(begins) > 1 else "knots"] += begins[1:]

    def value(t: int) -> float:
        i = bisect_right(begins, t) - 1
        return made[i](t - begins[i])

    return annotate(value, **{kind: sorted(set(updates)) for kind, updates in places.items()})
