"""Warm-up, schedule and cooldown over one run."""

import math
from collections.abc import Callable
from dataclasses import replace

from trainer.lr.bounds import ConfigError
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import SHAPES, Schedule, annotate, annotations, falling, one_of, values, with_range
from trainer.lr.warmup import Warmup

WARMUP_MODES = ("prefix", "overlay", "replace")
Cooldown = Callable[[Horizon, Schedule], Schedule]


def compose(
    horizon: Horizon,
    warmup: Callable[[Horizon], Warmup],
    schedule: Callable[[Horizon], Schedule],
    warmup_mode: str = "prefix",
    cooldown: Cooldown | None = None,
) -> tuple[Warmup, Schedule]:
    """Warm-up and schedule of a run, as functions of the run's `t`; `compose_schedule` describes `warmup_mode`."""
    rise = warmup(horizon)
    joined = _joined(horizon, warmup_mode)
    if horizon.after(joined).span < 1:
        raise ConfigError(f"a run of {horizon.total} updates is too short for a decay: lengthen trainer.duration.")
    if rise.updates + joined >= horizon.span:
        raise ConfigError(
            f"the warm-up of {rise.updates} updates leaves none of the run of {horizon.span} for the schedule: "
            "shorten warmup.duration or lengthen trainer.duration."
        )
    return rise, compose_schedule(horizon, rise.length, schedule, warmup_mode, cooldown)


def compose_schedule(
    horizon: Horizon,
    width: float,
    schedule: Callable[[Horizon], Schedule],
    warmup_mode: str = "prefix",
    cooldown: Cooldown | None = None,
) -> Schedule:
    """A schedule as a function of the run's `t`, beside a warm-up of W = `width` updates.

    prefix: the schedule starts after the warm-up: m(max(t - W, 0)) over T - W updates.
    overlay: the schedule spans the whole run and the warm-up multiplies it.
    replace: the schedule spans the whole run and the warm-up replaces its first W updates, with a jump at W.
    """
    if warmup_mode not in WARMUP_MODES:
        raise ConfigError(f"warmup_mode={warmup_mode!r} is not known: choose one of {', '.join(WARMUP_MODES)}.")
    rise_end = width
    width += _joined(horizon, warmup_mode)
    moved = width if warmup_mode == "prefix" else 0
    local: Callable[[float], float] = schedule(horizon.after(moved))  # type: ignore[assignment]  # W may be a fraction
    places = {kind: [math.ceil(t + moved) for t in updates] for kind, updates in annotations(local).items()}
    fall: Schedule = local
    if moved:
        fall = _later(local, moved)
    elif width and warmup_mode == "replace":
        fall = lambda t: 1.0 if t < width else local(t)  # noqa: E731
    if fall is not local or places:
        annotate(fall, **places)
    if cooldown is None:
        return fall
    cooled_down = cooldown(horizon, fall)
    if cooled_down is not fall and max(annotations(cooled_down).get("begin", (horizon.total,))) < rise_end:
        raise ConfigError(
            f"the cooldown begins at update {annotations(cooled_down)['begin'][0]}, within the warm-up of {rise_end}: "
            "shorten one of them."
        )
    return cooled_down


def _later(local: Callable[[float], float], width: float) -> Schedule:
    """A schedule that begins `width` updates later, and is at its first value until then."""

    def over(ts: range) -> list[float]:
        if not isinstance(width, int):
            return list(map(fall, ts))
        begun = range(max(ts.start, width), ts.stop)
        head = [local(0)] * (len(ts) - len(begun))
        moved = values(local, range(begun.start - width, begun.stop - width)) if begun else []
        return head + moved if head else moved

    def fall(t: int) -> float:
        return local(t - width if t > width else 0)

    return with_range(fall, over)


def _joined(horizon: Horizon, warmup_mode: str) -> int:
    """-1 where the schedule begins one update before the end of the warm-up, else 0."""
    return -1 if warmup_mode == "prefix" and horizon.convention.joins_early else 0


def no_cooldown(horizon: Horizon, schedule: Schedule) -> Schedule:
    """m(t): the schedule as it is."""
    return schedule


def cooldown(
    horizon: Horizon,
    schedule: Schedule,
    *,
    duration: Duration = "20%",
    shape: str = "linear",
    floor: float = 0.0,
) -> Schedule:
    """m(t) up to update b, then floor + (m(b) - floor) d(x) over the last `duration` updates.

    b is the first update of the cooldown and x = (t - b) / (T - b). `shape` is d, as in `wsd`. It works with any
    schedule. Hägele et al. 2024, arXiv:2405.18392; Zhai et al. 2021, arXiv:2106.04560.

    >>> curve = cooldown(Horizon(10, 1), lambda t: 0.8, duration=4)
    >>> [round(curve(t), 3) for t in (0, 6, 8, 10)]
    [0.8, 0.8, 0.4, 0.0]
    """
    width = horizon.updates(duration, "cooldown.duration", least=1)
    end = horizon.total - horizon.convention.early
    begin = end - width
    if begin < 0:
        raise ConfigError(f"cooldown.duration={duration} is {width} updates, but the run has {end}: shorten it.")
    return cooled(schedule, begin, end, shape, floor)


def cooled(schedule: Schedule, begin: int, end: int, shape: str, floor: float) -> Schedule:
    """`schedule` until update `begin`, then down from its value there to `floor` at update `end`."""
    high, curve = schedule(begin), one_of("cooldown.shape", shape, SHAPES)
    if floor > high:
        raise ConfigError(
            f"cooldown.floor={floor} lies above {high:.4g}, the schedule's value when the cooldown begins: lower it."
        )
    if not high:
        raise ConfigError(f"the schedule is at 0 at update {begin}, where the cooldown begins: begin it earlier.")
    tail = falling(begin, end, curve, floor / high)
    kept = {kind: tuple(t for t in updates if t <= begin) for kind, updates in annotations(schedule).items()}
    kept["knots"], kept["begin"] = (*kept.get("knots", ()), begin), (begin,)

    def over(ts: range) -> list[float]:
        cut = min(max(ts.start, begin + 1), ts.stop)
        if cut == ts.stop:
            return values(schedule, ts)
        fallen = values(tail, range(cut, ts.stop))
        return values(schedule, range(ts.start, cut)) + [high * share for share in fallen]

    fall = with_range(lambda t: schedule(t) if t <= begin else high * tail(t), over)
    return annotate(fall, **kept)


def sub_horizon(horizon: Horizon, length: int) -> Horizon:
    """The horizon of a part of a run with `length` updates: percentages are of that length."""
    return replace(horizon, total=length, start=0, convention=replace(horizon.convention, early=0))
