"""How many first updates two runs of different lengths have in common: those before their plans differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainer.config.adascale_config import is_adascale
from trainer.config.resolve import horizon_of, plan_of
from trainer.config.settings import Settings
from trainer.lr import ConfigError, Horizon, Plan
from trainer.resume.changes import differences, flat
from trainer.sweep.job import Job

LENGTH = "trainer.duration"
CURVE_KEYS = ("warmup", "schedule", "cooldown", "compat", "hyper_schedule", "group_schedule")
"""Keys that decide nothing but the plan, whose values are compared instead."""
WITHOUT_EFFECT = ("name", "trainer.checkpoint", LENGTH)
"""Keys that change no weight and no score before the end of a run."""


@dataclass(frozen=True)
class Planned:
    """A job with its settings, and the length and the plan that follow from them."""

    job: Job
    settings: Settings

    @cached_property
    def length(self) -> Horizon:
        """The length of the run, on the clock of its curve."""
        return horizon_of(self.settings)

    @cached_property
    def plan(self) -> Plan:
        """The plan of the run. If the groups depend on the model, this reads the data and builds the model."""
        return plan_of(self.settings)


def shared_updates(source: Planned, other: Planned) -> tuple[int, str]:
    """How many first updates `other` has in common with `source`, a longer run, and the reason where it is 0.

    The last update of the shorter run is never shared: it is trained and validated in a run of its own. Curves that
    agree at update 0 only share nothing.
    """
    if reason := next(_difference(source, other), ""):
        return 0, reason
    total = other.length.total - 1
    one, two = source.plan, other.plan
    shared = min(total, *(_common(one.curves[name], two.curves[name]) for name in one.curves))
    for name, values in one.hyper_schedules.items():
        shared = min(shared, *(_common(values[group], two.hyper_schedules[name][group]) for group in values))
    if shared > 1:
        return shared, ""
    rises = [planned.plan.policy.warmup.factor(0) for planned in (source, other)]
    if rises[0] != rises[1]:
        duration = source.settings.curve.warmup.get("duration")
        return 0, f"warmup.duration={duration} depends on the length: give it in updates"
    advice = "take one whose start does not depend on the length, as schedule=wsd"
    return 0, f"their curves differ from update {shared} on: {advice}"


def _difference(source: Planned, other: Planned) -> Iterator[str]:
    """What makes two runs differ from the start, apart from their curves, and what to do."""
    if is_adascale(source.settings.curve.scaling):
        yield "scaling=adascale counts updates by their gain: take another rule"
    if source.settings.curve.batch_schedule:
        yield "the batch grows: take batch_schedule=none"
    one, two = _beside_curve(source.settings), _beside_curve(other.settings)
    for key, (first, second) in differences(one, two).items():
        yield f"{key} follows {LENGTH} ({first}, {second}): give one value"
    for key, value in one.items():
        if isinstance(value, str) and value.endswith("%") and _updates(value, source) != _updates(value, other):
            yield f"{key}={value} is a share of the length: give it in updates"


def _beside_curve(settings: Settings) -> dict[str, Any]:
    """The settings of a run that do not belong to its curve, by key."""
    plain = flat({key: value for key, value in settings.record.items() if key not in CURVE_KEYS})
    return {key: value for key, value in plain.items() if key not in WITHOUT_EFFECT}


def _updates(text: str, planned: Planned) -> int | None:
    """A percentage of the length in updates; None where the text is no duration."""
    try:
        return planned.length.updates(text)
    except ConfigError:
        return None


def _common(one: Any, two: Any) -> int:
    """How many first values two curves have in common."""
    least = min(len(one), len(two))
    if one[:least] == two[:least]:
        return least
    return next(t for t in range(least) if one[t] != two[t])
