"""The curve of a run, woven from its curve_history: what each resume policy makes of the curve before it."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.config.batch_scaling import rescaled
from trainer.config.lr_policy import Groups, policy
from trainer.lr import ConfigError, Horizon, HyperSchedule, LRPolicy, Schedule, cooled
from trainer.lr.resumed_curve import cut, frozen, joined, reclocked

NEAR = 0.05
"""How far, as a share of the peak, a stretched curve may lie from the old one: rounding moves it a little."""


@dataclass(frozen=True)
class Change:
    """What a rule makes the new curve from: the old one, the new config and length, and where the new one begins."""

    old: LRPolicy
    cfg: DictConfig
    length: Horizon
    begin: int
    groups: Groups
    stretch: Fraction = Fraction(1)


def woven(segments: Sequence[dict[str, Any]], cfg: DictConfig, groups: Groups) -> LRPolicy:
    """The policy of a run with this curve_history, on the clock of its last segment.

    The present config `cfg` gives the numbers that other scheduled hyper-parameters start from.
    """
    made = policy(_config(segments[0]), _length(segments[0]), groups)
    for before, segment in itertools.pairwise(segments):
        length = _length(segment)
        old = reclocked(made, before["length"]["batch_size"], length.batch_size)
        change = Change(old, _config(segment), length, segment["samples"] // length.batch_size, groups)
        if segment["rule"] == "stretch":
            change = replace(change, stretch=Fraction(length.total, before["length"]["total"]))
        made = _RULES[segment["rule"]](change)
    if not made.hyper_schedules:
        return made
    present = policy(cfg, _length(segments[-1]), groups).hyper_schedules
    hyper_schedules = {
        name: HyperSchedule(dial.rule, present[name].bases)
        for name, dial in made.hyper_schedules.items()
        if name in present
    }
    return replace(made, hyper_schedules=hyper_schedules)


def _continue(to: Change) -> LRPolicy:
    return cut(joined(to.old, _rescaled(to.old, to), to.begin), to.length.total)


def _override(to: Change) -> LRPolicy:
    return joined(to.old, policy(to.cfg, to.length, to.groups), to.begin)


def _branch(to: Change) -> LRPolicy:
    """The new curve, which the run so far must have been trained along to the bit."""
    new = policy(to.cfg, to.length, to.groups)
    for t in range(to.begin):
        if to.old.lrs(t) != new.lrs(t) or to.old.values(t) != new.values(t):
            raise ConfigError(
                f"resume.policy=branch: the curves part at update {t}, and the checkpoint is after update {to.begin}: "
                f"branch off one of update {t} or before, or take another policy."
            )
    return new


def _stretch(to: Change) -> LRPolicy:
    """The old curve with every duration longer; refused where it counts single updates, which no duration tells."""
    made = policy(to.cfg, replace(to.length, stretch=to.stretch), to.groups)
    span = round(to.length.total / to.stretch)
    for then in (quarter * span // 4 for quarter in range(4)):
        now = round((then + 1) * to.stretch) - 1
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
    return joined(to.old, policy(to.cfg, rest, to.groups), to.begin, shift=to.begin)


def _branch_cooldown(to: Change) -> LRPolicy:
    def cool(curve: Schedule) -> Schedule:
        return cooled(curve, to.begin, to.length.total, to.cfg.resume.shape, to.cfg.resume.floor)

    still = frozen(_rescaled(to.old, to), to.begin)
    own = {name: cool(curve) for name, curve in still.own.items()}
    return joined(to.old, replace(still, schedule=cool(still.schedule), own=own), to.begin)


def _rescaled(old: LRPolicy, to: Change) -> LRPolicy:
    """The old curve with the peak that the batch-size rule gives it now."""
    return replace(old, scale=rescaled(to.cfg, to.length).scale)


_RULES: dict[str, Callable[[Change], LRPolicy]] = {
    "continue": _continue,
    "stretch": _stretch,
    "rewarm": _rewarm,
    "branch_cooldown": _branch_cooldown,
    "branch": _branch,
    "override": _override,
}


def _config(segment: dict[str, Any]) -> DictConfig:
    cfg = OmegaConf.create(segment["config"])
    assert isinstance(cfg, DictConfig)
    return cfg


def _length(segment: dict[str, Any]) -> Horizon:
    return Horizon(**segment["length"])
