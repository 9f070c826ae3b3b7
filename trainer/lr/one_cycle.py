"""One-cycle schedules, which have their own warm-up, and a constant peak that ends in a cosine."""

from collections.abc import Callable

from trainer.lr.bounds import ConfigError, fraction, integer
from trainer.lr.horizon import Duration, Horizon
from trainer.lr.schedule import FLOOR, SHAPES, START, Schedule, annotate, falling, one_of
from trainer.lr.stairs import joined

_CYCLE_SHAPES = {name: SHAPES[name] for name in ("cosine", "linear")}


def one_cycle(
    horizon: Horizon,
    *,
    rise: Duration = "30%",
    start: float = 0.04,
    floor: float = 4e-6,
    shape: str = "cosine",
    phases: int = 2,
) -> Schedule:
    """m(t) = start at t = 0, 1 at R, floor at the end.  Smith & Topin 2017, arXiv:1708.07120.

    R is `rise` in updates, a fraction where the convention has those. With 3 phases it is back at start at 2R, before
    it falls to the floor. Between these m(t) = low + (high - low) d(x): `shape` is d, "cosine" (1 + cos πx) / 2 or
    "linear" 1 - x. Where the convention ends a decay one update early, each phase does.

    >>> [one_cycle(Horizon(10, 1), rise=4, start=0.5, floor=0.0, shape="linear")(t) for t in (0, 2, 4, 7, 10)]
    [0.5, 0.75, 1.0, 0.5, 0.0]
    """
    count = integer("phases", phases, "2 is up and down, 3 is up, down to start and down to floor.", 2, 3)
    low, bottom = fraction("start", start, START), fraction("floor", floor, FLOOR)
    peak = _peak(horizon, rise, count - 1, horizon.exact)
    ends = [(0, low), (peak, 1.0), *[(2 * peak, low)] * (count - 2), (horizon.span, bottom)]
    curve = joined(ends, one_of("shape", shape, _CYCLE_SHAPES), horizon.span)
    return annotate(curve, knots=[time for time, _ in ends[1:-1]])


def one_cycle_stairs(
    horizon: Horizon, *, rise: Duration = "30%", stairs: int = 5, start: float = 0.04, floor: float = 4e-6
) -> Schedule:
    """m(t) = start + (1 - start) ⌊n x⌋ / n up, 1 - (1 - floor) ⌊n x⌋ / n down: the linear one-cycle in n = `stairs`.

    x is the share of the phase that is done: of the first `rise` updates, then of the rest. At the end m(t) = floor.
    The staircase of DeepSpeed's OneCycle.

    >>> [one_cycle_stairs(Horizon(12, 1), rise=4, stairs=2, start=0.5, floor=0.0)(t) for t in (0, 2, 4, 8, 12)]
    [0.5, 0.75, 1.0, 0.5, 0.0]
    """
    count = integer("stairs", stairs, "it is the number of stairs of each phase.")
    low, bottom = fraction("start", start, START), fraction("floor", floor, FLOOR)
    peak, span = int(_peak(horizon, rise, 1, horizon.updates)), horizon.span

    def factor(t: int) -> float:
        if t < peak:
            return low + (1.0 - low) * (t * count // peak / count)
        if t >= span:
            return bottom
        return bottom + (1.0 - bottom) * (1.0 - (t - peak) * count // (span - peak) / count)

    jumps = {*_falls(0, peak, count), *_falls(peak, span, count)}
    return annotate(factor, jumps=sorted(jump for jump in jumps if jump < horizon.left))


def flat_cosine(horizon: Horizon, *, flat: Duration = "75%", floor: float = 0.0) -> Schedule:
    """m(t) = 1 for the first `flat` updates, then floor + (1 - floor) (1 + cos πx) / 2; as fastai's fit_flat_cos.

    >>> [flat_cosine(Horizon(8, 1), flat=4)(t) for t in (0, 4, 6, 8)]
    [1.0, 1.0, 0.5, 0.0]
    """
    begin = horizon.exact(flat, "flat")
    if begin >= horizon.span:
        raise ConfigError(f"flat={flat} is {begin:g} updates, but the schedule has {horizon.span}: shorten it.")
    return annotate(falling(begin, horizon.span, SHAPES["cosine"], floor), knots=[begin])


def _peak(horizon: Horizon, rise: Duration, times: int, read: Callable[..., float]) -> float:
    """The update of the peak: the end of a first phase that has room for `times` such phases and a last one."""
    early = horizon.convention.early
    width = read(rise, "rise", least=1)
    if width <= early:
        raise ConfigError(f"rise={rise} is {width:g} updates, the last of which is the peak: make it longer.")
    if times * (width - early) >= horizon.span:
        raise ConfigError(
            f"rise={rise} is {width:g} updates, and {times + 1} phases do not fit in the {horizon.span} of the "
            "schedule: shorten it."
        )
    return width - early


def _falls(begin: int, end: float, count: int) -> set[int]:
    """The updates at which `count` equal stairs from `begin` to `end` begin anew."""
    seen = min(count, int(end) - begin)
    return {begin - int(-i * (end - begin) // seen) for i in range(1, seen + 1)}
