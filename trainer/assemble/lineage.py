"""Where the curve of a run comes from: the config of its start, and what each resume has made of it.

A lineage is a list of plain segments, kept in every checkpoint: from which sample on, by which rule, with which
config and length. The curve is woven from it anew at each start, so that a run killed and resumed goes on with it.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.assemble.changes import Changes, differences
from trainer.assemble.policy import Groups, policy, scaled
from trainer.lr import Horizon, Policy, Refusal, Schedule, cooled
from trainer.lr.splice import joined, reclocked

CURVE = "groups scaling warmup schedule cooldown compat hyper group_schedule composition plateau".split()
"""What decides the curve, beside optimizer.lr, the length and the batch."""
FITS = {
    "continue": "keeps the old curve, which holds its last value past its end",
    "stretch": "stretches it over the new length",
    "branch_cooldown": "cools down from here to the new end",
    "rewarm": "begins the new curve, with its warm-up, over the updates that are left",
    "override": "takes the new curve as if it had been so from the start",
}
LENGTH = ("updates", "global batch")
OF_LENGTH = ("continue", "stretch", "branch_cooldown")
"""The policies for a curve of which only the length or the batch has changed."""

Segment = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """What a rule makes the new curve from: the old one, the new config and length, and where the new one begins."""

    old: Policy
    cfg: DictConfig
    length: Horizon
    begin: int
    groups: Groups
    stretch: Fraction = Fraction(1)


def lineage(cfg: DictConfig, length: Horizon, saved: dict[str, Any] | None) -> list[Segment]:
    """The segments of this run's curve: those of the checkpoint, and one more where the curve changes.

    Raises `Refusal` where the config gives another curve than the checkpoint's and no policy says what shall become
    of it, or one that does not fit what has changed.
    """
    rule = cfg.resume.policy
    if rule is not None and rule not in FITS:
        raise Refusal(f"resume.policy={rule} is not known: choose one of {', '.join(FITS)}, or null.")
    now = _segment(cfg, length)
    if saved is None:
        if rule is not None and cfg.resume.path in (None, "none"):
            raise Refusal(f"resume.policy={rule} has nothing to resume: set resume.path, or resume=auto.")
        return [now]
    segments = list(saved["lineage"])
    told = changes(segments[-1], now)
    if not told and rule in (None, "continue", "stretch", "override", segments[-1]["rule"]):
        return segments
    _check_fit(rule, told, segments)
    begin = saved["updates"] * saved["batch_size"]
    if rule in ("rewarm", "branch_cooldown") and begin >= _samples(now):
        raise Refusal(f"resume.policy={rule} has no update left: lengthen trainer.duration beyond the checkpoint's.")
    return [*segments, {**now, "rule": rule, "samples": begin}]


def woven(segments: list[Segment], groups: Groups) -> Policy:
    """The policy of a run with this lineage, on the clock of its last segment."""
    made = policy(_config(segments[0]), _length(segments[0]), groups)
    for before, segment in itertools.pairwise(segments):
        length = _length(segment)
        old = reclocked(made, before["length"]["batch_size"], length.batch_size)
        change = Change(old, _config(segment), length, segment["samples"] // length.batch_size, groups)
        if segment["rule"] == "stretch":
            change = replace(change, stretch=Fraction(length.total, before["length"]["total"]))
        made = _RULES[segment["rule"]](change)
    return made


def _check_fit(rule: str | None, told: Changes, segments: list[Segment]) -> None:
    """Refuse a change that no policy, or the wrong one, has an answer to."""
    other = {key: change for key, change in told.items() if key not in LENGTH}
    if rule is None:
        fitting = [name for name in FITS if (name not in OF_LENGTH) or not other]
        advice = "; ".join(f"resume.policy={name} {FITS[name]}" for name in fitting)
        raise Refusal(f"the checkpoint has another curve ({_words(told)}): {advice}.")
    if rule in OF_LENGTH and other:
        raise Refusal(f"resume.policy={rule} keeps the curve, but {_words(other)}: take rewarm or override.")
    if rule == "stretch" and len(segments) > 1:
        raise Refusal("resume.policy=stretch: the curve was changed by a resume before: take rewarm or override.")
    if rule == "stretch" and "global batch" in told:
        raise Refusal(f"resume.policy=stretch changes the length only, but {_words(told)}: take continue or override.")


def changes(before: Segment, now: Segment) -> Changes:
    """What of two segments makes their curves differ, by key: (before, now)."""
    told: Changes = {}
    for name, key in zip(LENGTH, ("total", "batch_size")):
        if before["length"][key] != now["length"][key]:
            told[name] = (before["length"][key], now["length"][key])
    if set(told) == {"updates", "global batch"} and _samples(before) == _samples(now):
        del told["updates"]
    return {**told, **differences(_curve(before["config"]), _curve(now["config"]))}


def _continue(to: Change) -> Policy:
    return replace(to.old, scale=scaled(to.cfg, to.length))


def _override(to: Change) -> Policy:
    return joined(to.old, policy(to.cfg, replace(to.length, stretch=to.stretch), to.groups), to.begin)


def _rewarm(to: Change) -> Policy:
    rest = replace(to.length, total=to.length.total - to.begin)
    return joined(to.old, policy(to.cfg, rest, to.groups), to.begin, shift=to.begin)


def _branch_cooldown(to: Change) -> Policy:
    def cool(curve: Schedule) -> Schedule:
        return cooled(curve, to.begin, to.length.total, to.cfg.resume.shape, to.cfg.resume.floor)

    own = {name: cool(curve) for name, curve in to.old.own.items()}
    return replace(to.old, scale=scaled(to.cfg, to.length), schedule=cool(to.old.schedule), own=own)


_RULES: dict[str, Callable[[Change], Policy]] = {
    "continue": _continue,
    "stretch": _override,
    "rewarm": _rewarm,
    "branch_cooldown": _branch_cooldown,
    "override": _override,
}


def _config(segment: Segment) -> DictConfig:
    cfg = OmegaConf.create(segment["config"])
    assert isinstance(cfg, DictConfig)
    return cfg


def _length(segment: Segment) -> Horizon:
    return Horizon(**segment["length"])


def _segment(cfg: DictConfig, length: Horizon) -> Segment:
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    keys = ("total", "batch_size", "updates_per_epoch", "tokens_per_sample")
    return {"rule": None, "samples": 0, "config": config, "length": {key: getattr(length, key) for key in keys}}


def _samples(segment: Segment) -> int:
    return segment["length"]["total"] * segment["length"]["batch_size"]


def _curve(config: dict[str, Any]) -> dict[str, Any]:
    return {**{key: config.get(key) for key in CURVE}, "optimizer": {"lr": config["optimizer"].get("lr")}}


def _words(told: Changes) -> str:
    return ", ".join(f"{key} {before} → {now}" for key, (before, now) in told.items())
