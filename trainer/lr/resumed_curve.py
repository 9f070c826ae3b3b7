"""Policies of a resumed run: another curve from an update on, or another batch size."""

from dataclasses import replace

from trainer.lr.hyper_schedule import HyperSchedule, Rule
from trainer.lr.policy import LRPolicy
from trainer.lr.schedule import Schedule, annotate, annotations
from trainer.lr.warmup import Warmup


def joined(old: LRPolicy, new: LRPolicy, begin: int, shift: int = 0) -> LRPolicy:
    """`old` before update `begin`, and from there on `new` at t - `shift`.

    Before `begin` the rates are those of `old`, given as shares of the peak of `new`. The warm-up lasts as in `old`.
    """
    ratio = old.peak_lr / new.peak_lr
    rise, later = old.warmup.factor, new.warmup.factor
    names = {*old.own, *new.own}
    return replace(
        new,
        warmup=Warmup(
            old.warmup.updates, _noted(lambda t: later(t - shift) if t >= begin else rise(t), new, begin, shift)
        ),
        schedule=_joined(old.schedule, new.schedule, begin, shift, ratio),
        own={
            name: _joined(old.schedule_of(name), new.schedule_of(name), begin, shift, ratio)
            for name in new.groups
            if name in names
        },
        hyper_schedules={
            name: HyperSchedule(_turned(old.hyper_schedules.get(name), one.rule, begin, shift), one.bases)
            for name, one in new.hyper_schedules.items()
        },
    )


def reclocked(policy: LRPolicy, before: int, after: int) -> LRPolicy:
    """A policy planned for batches of `before` samples, for batches of `after`: the same rate at each sample."""
    if before == after:
        return policy

    def read(curve: Schedule) -> Schedule:
        places = {kind: tuple(-(-t * before // after) for t in updates) for kind, updates in annotations(curve).items()}
        return annotate(lambda t: curve(t * after // before), **places)

    return replace(
        policy,
        warmup=Warmup(-(-policy.warmup.updates * before // after), read(policy.warmup.factor)),
        schedule=read(policy.schedule),
        own={name: read(curve) for name, curve in policy.own.items()},
        hyper_schedules={
            name: HyperSchedule(_slowed(one.rule, before, after), one.bases)
            for name, one in policy.hyper_schedules.items()
        },
    )


def _noted(rise: Schedule, new: LRPolicy, begin: int, shift: int) -> Schedule:
    """`rise` with the jumps and the end of the warm-up of `new` annotated as jumps: the rate may jump there."""
    jumps = [
        t + shift for t in (*annotations(new.warmup.factor).get("jumps", ()), new.warmup.updates) if t + shift >= begin
    ]
    return annotate(rise, jumps=jumps)


def cut(policy: LRPolicy, total: int) -> LRPolicy:
    """A policy for a run that ends at `total`: annotations past it are left out."""

    def within(curve: Schedule) -> Schedule:
        places = {kind: tuple(t for t in updates if t < total) for kind, updates in annotations(curve).items()}
        return annotate(lambda t: curve(t), **places)

    own = {name: within(curve) for name, curve in policy.own.items()}
    return replace(policy, schedule=within(policy.schedule), own=own)


def frozen(policy: LRPolicy, begin: int) -> LRPolicy:
    """A policy whose warm-up stays at its value of update `begin`."""
    rise = policy.warmup.factor
    return replace(policy, warmup=Warmup(policy.warmup.updates, lambda t: rise(min(t, begin))))


def _joined(old: Schedule, new: Schedule, begin: int, shift: int, ratio: float) -> Schedule:
    first = {kind: [t for t in updates if t < begin] for kind, updates in annotations(old).items()}
    second = {kind: [t + shift for t in updates if t + shift >= begin] for kind, updates in annotations(new).items()}
    places = {kind: [*first.get(kind, ()), *second.get(kind, ())] for kind in {"jumps", *first, *second}}
    places["jumps"] = sorted({*places["jumps"], begin})
    return annotate(lambda t: new(t - shift) if t >= begin else ratio * old(t), **places)


def _turned(old: HyperSchedule | None, new: Rule, begin: int, shift: int) -> Rule:
    def rule(t: int, base: float, share: float) -> float:
        if t >= begin:
            return new(t - shift, base, share)
        return old.rule(t, base, share) if old else base

    return rule


def _slowed(rule: Rule, before: int, after: int) -> Rule:
    return lambda t, base, share: rule(t * after // before, base, share)
