"""The curve of a run, made from its curve history: how each resume policy changes the curve before it."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

from trainer.cli.environment import resolved
from trainer.lr import ConfigError, Horizon, HyperSchedule, LRPolicy, Schedule, cooled
from trainer.lr.backoff import ROLLBACK
from trainer.lr.resumed_curve import cut, frozen, joined, reclocked

NEAR = 0.05
"""How far, as a share of the peak, a stretched curve may lie from the old one: rounding moves it a little."""


class CurveMaker(Protocol):
    """Makes the curve of a resolved config over a length, without any resume."""

    def policy(self, config: Mapping[str, Any], length: Horizon) -> LRPolicy:
        """The whole curve."""

    def scale(self, config: Mapping[str, Any], length: Horizon) -> float:
        """What the batch-size rule multiplies the learning rate by."""


@dataclass(frozen=True)
class Change:
    """What a rule makes the new curve from: the old one, the new config and length, and where the new one begins.

    `stretch` is the new length over that of the config's own curve, `longer` the new length over the old one.
    """

    old: LRPolicy
    config: Mapping[str, Any]
    length: Horizon
    begin: int
    curves: CurveMaker
    stretch: Fraction = Fraction(1)
    longer: Fraction = Fraction(1)

    def new(self, length: Horizon | None = None) -> LRPolicy:
        """The curve of the new config, over its length or another."""
        return self.curves.policy(self.config, self.length if length is None else length)


def resumed_curve(segments: Sequence[Mapping[str, Any]], config: Mapping[str, Any], curves: CurveMaker) -> LRPolicy:
    """The policy of a run with this curve_history, on the clock of its last segment.

    The present config gives the numbers that other scheduled hyper-parameters start from.
    """
    segments = [{**segment, "config": resolved(segment["config"])} for segment in segments]
    made = curves.policy(segments[0]["config"], _length(segments[0]))
    unstretched = segments[0]
    for before, segment in itertools.pairwise(segments):
        length = _length(segment)
        old = reclocked(made, before["length"]["batch_size"], length.batch_size)
        change = Change(old, segment["config"], length, segment["samples"] // length.batch_size, curves)
        if segment["rule"] == "stretch":
            totals = (one["length"]["total"] for one in (unstretched, before))
            stretch, longer = (Fraction(length.total, total) for total in totals)
            change = replace(change, stretch=stretch, longer=longer)
        made = _RULES[segment["rule"]](change)
    if not made.hyper_schedules:
        return made
    present = curves.policy(resolved(config), _length(segments[-1])).hyper_schedules
    hyper_schedules = {
        name: HyperSchedule(schedule.rule, present[name].bases)
        for name, schedule in made.hyper_schedules.items()
        if name in present
    }
    return replace(made, hyper_schedules=hyper_schedules)


def _continue(to: Change) -> LRPolicy:
    return cut(joined(to.old, _with_new_peak(to.old, to), to.begin), to.length.total)


def _override(to: Change) -> LRPolicy:
    return joined(to.old, to.new(), to.begin)


def _branch(to: Change) -> LRPolicy:
    """The new curve; refused where it differs from the old one before the checkpoint, in any bit."""
    new = to.new()
    for t in range(to.begin):
        if to.old.lrs(t) != new.lrs(t) or to.old.values(t) != new.values(t):
            raise ConfigError(
                f"resume.policy=branch: the curves differ at update {t}, and the checkpoint is after update "
                f"{to.begin}: branch off one of update {t} or before, or take another policy."
            )
    return new


def _stretch(to: Change) -> LRPolicy:
    """The old curve with every duration stretched; refused where it counts in updates, which do not stretch."""
    made = to.new(replace(to.length, stretch=to.stretch))
    span = round(to.length.total / to.longer)
    for then in (quarter * span // 4 for quarter in range(4)):
        now = round((then + 1) * to.longer) - 1
        around = [to.old.lr(t) / to.old.peak_lr for t in (max(then - 1, 0), then, then + 1)]
        share = made.lr(now) / made.peak_lr
        if not min(around) - NEAR <= share <= max(around) + NEAR:
            raise ConfigError(
                f"resume.policy=stretch: this curve counts in updates, and would be at {share:.4g} of its peak in "
                f"place of {around[1]:.4g} at update {now}: take continue or override."
            )
    return joined(to.old, made, to.begin)


def _rewarm(to: Change) -> LRPolicy:
    rest = replace(to.length, total=to.length.total - to.begin)
    return joined(to.old, to.new(rest), to.begin, shift=to.begin)


def _branch_cooldown(to: Change) -> LRPolicy:
    resume = to.config["resume"]

    def cool(curve: Schedule) -> Schedule:
        return cooled(curve, to.begin, to.length.total, resume["shape"], resume["floor"])

    still = frozen(_with_new_peak(to.old, to), to.begin)
    own = {name: cool(curve) for name, curve in still.own.items()}
    return joined(to.old, replace(still, schedule=cool(still.schedule), own=own), to.begin)


def _with_new_peak(old: LRPolicy, to: Change) -> LRPolicy:
    """The old curve with the peak that the batch-size rule gives it now."""
    return replace(old, scale=to.curves.scale(to.config, to.length))


_RULES: dict[str, Callable[[Change], LRPolicy]] = {
    "continue": _continue,
    "stretch": _stretch,
    "rewarm": _rewarm,
    "branch_cooldown": _branch_cooldown,
    "branch": _branch,
    "override": _override,
    ROLLBACK: lambda to: to.old,
}


def _length(segment: Mapping[str, Any]) -> Horizon:
    return Horizon(**segment["length"])
