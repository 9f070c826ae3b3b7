"""Increase the batch instead of decaying the learning rate. Smith et al. 2017, arXiv:1711.00489."""

import math
from collections.abc import Iterator
from dataclasses import replace

from trainer.lr.bounds import ConfigError, integer, number
from trainer.lr.growth import Growth
from trainer.lr.horizon import Horizon
from trainer.lr.hyper_schedule import HyperSchedule, Rule
from trainer.lr.policy import LRPolicy
from trainer.lr.schedule import Schedule, annotate, annotations
from trainer.lr.warmup import Warmup

BATCH = "batch_size"
"""The name of the batch among the other hyper-parameters."""
STAIRS = (
    "it needs stairs, as in schedule=step, multi_step, piecewise_constant, table, exponential_decay with "
    "staircase=true, and a sequence of them, with cooldown=none"
)
_NEAR = 1e-9
"""The relative rounding error allowed in quotients of shares: 0.1² is not 0.01."""


def grow(
    horizon: Horizon,
    schedule: Schedule,
    *,
    max_batch_size: int,
    exponent: float = 1.0,
    noise_batch: int | None = None,
) -> Growth:
    """B = r B0, r = ⌊(m0 / m)^(1/exponent)⌋ up to `max_batch_size`; m is the schedule's value, m0 its first one.

    The learning rate follows m · r^exponent in place of m: constant where r needs no rounding, so that
    lr / B^exponent is what the schedule says at each sample. `exponent` 1 keeps the noise scale of SGD,
    lr N / (B (1 - momentum)); 0.5 is the square-root rule of Adam.

    >>> growth = grow(Horizon(30, 8), lambda t: 0.1 ** (t // 10), max_batch_size=160)
    >>> [(stage.update, 8 * stage.ratio) for stage in growth.stages], growth.first(30)
    ([(0, 8), (10, 80), (11, 160)], 12)
    """
    power = number(
        "exponent",
        exponent,
        "the rate scales as B^exponent: give 1 for SGD, 0.5 for Adam, or another value above 0 and up to 1.",
        _NEAR,
        1.0,
    )
    if noise_batch is not None:
        integer("noise_batch", noise_batch, "it is the noise scale, in samples, or null.")
    most = _most(horizon, max_batch_size)
    stairs = list(_stairs(schedule, horizon.total))
    high = stairs[0][1]
    if len(stairs) == 1:
        raise ConfigError(_why_even(schedule, horizon.total))
    ratios = [(t, _ratio(high, share, power, most)) for t, share in stairs]
    if all(ratio == 1 for _, ratio in ratios):
        raise ConfigError(
            f"the schedule falls to {min(share for _, share in stairs) / high:.3g} of its first stair, but the batch "
            f"doubles only at {0.5**power:.3g}, so it never grows: lower the stairs, or take batch_schedule=none."
        )
    return Growth.of(ratios, horizon.total, power, noise_batch)


def grown(policy: LRPolicy, growth: Growth, batch_size: int) -> LRPolicy:
    """A policy made in reference updates, as one in updates of a run whose batch grows from `batch_size`.

    The schedule at update t is the old one at reference update at(t), times ratio(t)^exponent, and the first stair's
    value where it differs from that by rounding only. Warm-up and hyper-parameters are the old ones at at(t). The
    batch joins them as the hyper-parameter `batch_size`.
    """
    rise, fall, at, high = policy.warmup, policy.schedule, growth.at, policy.schedule(0)

    def schedule(t: int) -> float:
        share = fall(at(t)) * growth.ratio(t) ** growth.exponent
        return high if math.isclose(share, high, rel_tol=_NEAR) else share

    places = {kind: {growth.first(t) for t in updates} for kind, updates in annotations(fall).items()}
    starts, total = {stage.update for stage in growth.stages[1:]}, growth.first(growth.reference)
    jumps = places.get("jumps", set()) | starts
    known = [t for t in jumps if t >= total or not math.isclose(schedule(t), schedule(t - 1), rel_tol=_NEAR)]
    places_now = {**places, "jumps": sorted(known), "batch grows": sorted(starts)}
    hyper_schedules = {
        name: HyperSchedule(_read(one.rule, growth), one.bases) for name, one in policy.hyper_schedules.items()
    }
    hyper_schedules[BATCH] = HyperSchedule(lambda t, base, share: base * growth.ratio(t), (float(batch_size),))
    warmup = Warmup(growth.first(rise.updates), annotate(lambda t: rise.factor(at(t)), **_moved(rise.factor, growth)))
    return replace(policy, warmup=warmup, schedule=annotate(schedule, **places_now), hyper_schedules=hyper_schedules)


def _most(horizon: Horizon, size: int) -> int:
    """The largest ratio: `size`, in samples, over the starting batch."""
    start, epoch = horizon.batch_size, horizon.updates_per_epoch
    why = f"the batch begins at {start} samples and grows in multiples of that."
    most, rest = divmod(integer("max_batch_size", size, why), start)
    if not most:
        raise ConfigError(f"max_batch_size={size} lies below the starting batch of {start}: {why}")
    if most == 1 and not rest:
        raise ConfigError(
            f"max_batch_size={size} is the starting batch, so it never grows: take {2 * start} or more, or "
            "batch_schedule=none."
        )
    if rest:
        near = " or ".join(str(ratio * start) for ratio in (most, most + 1) if ratio > 1)
        raise ConfigError(f"max_batch_size={size} is not a multiple of {start}: take {near}.")
    if epoch and most > epoch:
        raise ConfigError(f"max_batch_size={size} is more than the {epoch * start} samples of an epoch: lower it.")
    return most


def _why_even(schedule: Schedule, total: int) -> str:
    """The error message for a schedule that has one value over the whole run."""
    late = [t for t in annotations(schedule).get("jumps", ()) if t >= total]
    if late:
        return (
            f"the schedule first falls at update {min(late)}, and the last update is {total - 1}: place its milestones "
            "within the run, after the warm-up, or lengthen trainer.duration."
        )
    return f"the schedule is {schedule(0):g} at every update, and the batch grows where it falls: {STAIRS}."


def _stairs(schedule: Schedule, total: int) -> Iterator[tuple[int, float]]:
    """The first update and the value of each stair; `ConfigError` where it rises or has no stairs."""
    yield 0, schedule(0)
    last, before = -1, schedule(0)
    for t in range(1, total):
        now = schedule(t)
        if now == before:
            continue
        if now > before:
            raise ConfigError(
                f"the schedule rises from {before:.4g} to {now:.4g} at update {t}, but a batch cannot shrink: {STAIRS}."
            )
        if last == t - 1:
            raise ConfigError(
                f"the schedule is not made of stairs, it changes at update {last} and again at {t}: {STAIRS}."
            )
        yield t, now
        last, before = t, now


def _ratio(high: float, share: float, exponent: float, most: int) -> int:
    """The ratio of batches that replaces a fall of the rate from `high` to `share`, at most `most`."""
    if share <= 0.0 or high / share >= most**exponent * (1.0 - _NEAR):
        return most
    return math.floor((high / share) ** (1.0 / exponent) * (1.0 + _NEAR))


def _moved(curve: Schedule, growth: Growth) -> dict[str, list[int]]:
    return {kind: [growth.first(t) for t in updates] for kind, updates in annotations(curve).items()}


def _read(rule: Rule, growth: Growth) -> Rule:
    return lambda t, base, share: rule(growth.at(t), base, share)
