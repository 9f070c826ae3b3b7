"""Where two runs that differ in their length only part: the first update at which their plans do."""

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
OF_THE_CURVE = ("warmup", "schedule", "cooldown", "compat", "hyper_schedule", "group_schedule")
"""What makes the plan and nothing else: plans are compared by their values."""
OF_NO_BIT = ("name", "trainer.checkpoint", LENGTH)
"""What changes no weight and no score before the end of a run."""


@dataclass(frozen=True)
class Planned:
    """A job with its settings, and how long it is."""

    job: Job
    settings: Settings

    @cached_property
    def length(self) -> Horizon:
        """Its length, on the clock of its curve."""
        return horizon_of(self.settings)

    @cached_property
    def plan(self) -> Plan:
        """Its whole curve; where the groups depend on the model, the data is read and the model built."""
        return plan_of(self.settings)


def shared_updates(trunk: Planned, other: Planned) -> tuple[int, str]:
    """How many updates two runs share from the first on, and why they share none, where it is 0.

    The last update of the shorter one is never shared, so that it is trained and scored in a run of its own; and that
    curves agree at update 0 alone, where they all begin, is no trunk.
    """
    if unlike := next(_unlike(trunk, other), ""):
        return 0, unlike
    total = other.length.total - 1
    one, two = trunk.plan, other.plan
    shared = min(total, *(_alike(one.curves[name], two.curves[name]) for name in one.curves))
    for name, values in one.hyper_schedules.items():
        shared = min(shared, *(_alike(values[group], two.hyper_schedules[name][group]) for group in values))
    if shared > 1:
        return shared, ""
    rises = [planned.plan.policy.warmup.factor(0) for planned in (trunk, other)]
    if rises[0] != rises[1]:
        duration = trunk.settings.curve.warmup.get("duration")
        return 0, f"warmup.duration={duration} depends on the length: give it in updates"
    return 0, f"their curves part at update {shared}: take one that begins alike for each length, as schedule=wsd"


def _unlike(trunk: Planned, other: Planned) -> Iterator[str]:
    """What makes two runs differ from the start, beside their curves, and what to do."""
    if is_adascale(trunk.settings.curve.scaling):
        yield "scaling=adascale counts updates by their gain: take another rule"
    if trunk.settings.curve.batch_schedule:
        yield "the batch grows: take batch_schedule=none"
    one, two = _beside_curve(trunk.settings), _beside_curve(other.settings)
    for key, (first, second) in differences(one, two).items():
        yield f"{key} follows {LENGTH} ({first}, {second}): give one value"
    for key, value in one.items():
        if isinstance(value, str) and value.endswith("%") and _updates(value, trunk) != _updates(value, other):
            yield f"{key}={value} is a share of the length: give it in updates"


def _beside_curve(settings: Settings) -> dict[str, Any]:
    """What a run is told beside its curve, by key."""
    plain = flat({key: value for key, value in settings.record.items() if key not in OF_THE_CURVE})
    return {key: value for key, value in plain.items() if key not in OF_NO_BIT}


def _updates(text: str, planned: Planned) -> int | None:
    """A percentage of the length in updates; None for what is no duration."""
    try:
        return planned.length.updates(text)
    except ConfigError:
        return None


def _alike(one: Any, two: Any) -> int:
    """How many values two curves share from the first on."""
    least = min(len(one), len(two))
    if one[:least] == two[:least]:
        return least
    return next(t for t in range(least) if one[t] != two[t])
