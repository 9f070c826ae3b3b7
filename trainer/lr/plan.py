"""The whole curve before training: every rate of every group, a summary and a sketch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import mul

from trainer.lr.bounds import ConfigError
from trainer.lr.horizon import Horizon
from trainer.lr.hyper_schedule import check_values
from trainer.lr.policy import LRPolicy
from trainer.lr.schedule import annotations
from trainer.lr.trace import RUN, Course, Trace, Values, course, traced

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WORDS = {"jumps": "jump", "knots": "bend", "ends": "cycle ends"}


@dataclass(frozen=True)
class Plan:
    """Every learning rate of a run, known before its first update.

    `settings` has other numbers of each group, such as `weight_decay`; where the policy schedules one, the scheduled
    values replace it. Raises `ConfigError` if a learning rate is negative or not finite, if all are zero, and if
    another hyper-parameter leaves its range.

    >>> from trainer.lr import linear, linear_warmup, compose
    >>> run = Horizon(8, 1)
    >>> plan = Plan(LRPolicy(1.0, 1.0, *compose(run, lambda h: linear_warmup(h, duration=4), linear)), run)
    >>> list(plan.curve), plan.milestones()
    ([0.25, 0.5, 0.75, 1.0, 1.0, 0.75, 0.5, 0.25], [(4, 'warm-up ends')])
    """

    policy: LRPolicy
    horizon: Horizon
    settings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not any(course.peak for course in self.courses.values()):
            raise ConfigError("the learning rate is 0 at every update: nothing would be trained.")
        for name, groups in self.hyper_schedules.items():
            for values in groups.values():
                check_values(name, values)

    @property
    def curves(self) -> Mapping[str, Values]:
        """The learning rates of each group at t = 0 … T-1, equal to `policy.lrs` to the bit."""
        return self._trace.rates

    @property
    def hyper_schedules(self) -> Mapping[str, Mapping[str, Values]]:
        """The values of the other hyper-parameters that change, each by group, or once for the run (`RUN`)."""
        return self._trace.hyper_schedules

    @cached_property
    def curve(self) -> Values:
        """The learning rate of the first group at t = 0 … T-1."""
        return next(iter(self.curves.values()))

    @property
    def peak(self) -> int:
        """The first update with the first group's highest learning rate."""
        return next(iter(self.courses.values())).peak_update

    @cached_property
    def courses(self) -> Mapping[str, Course]:
        """First, highest and last learning rate of each group, and their sum."""
        known: dict[int, Course] = {}
        for group, curve in self.curves.items():
            if id(curve) not in known:
                known[id(curve)] = course(group, curve, *self._trace.bounds[group])
        return {group: known[id(curve)] for group, curve in self.curves.items()}

    def alike(self) -> list[list[str]]:
        """The groups that follow the same schedule, together: their curves differ by a factor only."""
        found: dict[int, list[str]] = {}
        for group in self.policy.groups:
            found.setdefault(id(self.policy.schedule_of(group)), []).append(group)
        return list(found.values())

    def setting(self, name: str, group: str) -> Values | float | None:
        """A setting of a group: the scheduled values, or else the fixed number; None where neither is known."""
        if name in self.hyper_schedules:
            return self.hyper_schedules[name].get(group, self.hyper_schedules[name].get(RUN))
        return self.settings.get(group, {}).get(name)

    def decay_area(self, group: str) -> float | None:
        """Σ lr · weight decay over the run: AdamW shrinks a weight by about e^-Σ."""
        decay = self.setting("weight_decay", group)
        if decay is None or isinstance(decay, float | int):
            return None if decay is None else decay * self.courses[group].area
        return math.fsum(map(mul, self.curves[group], decay))

    def landmarks(self) -> list[int]:
        """The updates worth a row in a table: ends, end of warm-up, peak, quarters."""
        total, width = self.horizon.total, self.policy.warmup.updates
        points = {0, width - 1, width, self.peak, *(total * i // 4 for i in (1, 2, 3)), total - 1}
        return sorted(t for t in points if 0 <= t < total)

    def milestones(self, most: int = 16) -> list[tuple[int, str]]:
        """The updates at which something happens, and what: the end of the warm-up, jumps, bends, ends of cycles.

        Of more than `most`, only the first and the last are listed, with the number of those left out between them.
        """
        found: dict[int, list[str]] = {}
        if self.policy.warmup.updates:
            found[self.policy.warmup.updates] = ["warm-up ends"]
        for groups in self.alike():
            whose = "" if len(self.alike()) == 1 else f" ({', '.join(groups)})"
            for kind, updates in annotations(self.policy.schedule_of(groups[0])).items():
                for t in updates:
                    found.setdefault(t, []).append(f"{_WORDS.get(kind, kind)}{whose}")
        rows = [(t, ", ".join(what)) for t, what in sorted(found.items())]
        if len(rows) <= most:
            return rows
        head, tail = most - most // 2, most // 2 - 1
        return [*rows[:head], (rows[head][0], f"… and {len(rows) - head - tail} such"), *rows[len(rows) - tail :]]

    def batches(self) -> list[dict[str, float]]:
        """For each batch size of a batch that grows: its first update, the samples before it, and the schedule there.

        Empty where the batch does not grow.
        """
        if not self.horizon.growth.grows:
            return []
        size = self.horizon.batch_size
        return [
            {"update": t, "samples": at * size, "batch": ratio * size, "schedule": self.policy.schedule(t)}
            for t, at, ratio in self.horizon.growth.stages
        ]

    def summary(self) -> dict[str, object]:
        """The curves in plain numbers; those outside `curves` are of the first group."""
        first, horizon = next(iter(self.courses.values())), self.horizon
        return {
            "total_updates": horizon.total,
            "warmup_updates": self.policy.warmup.updates,
            "updates_per_epoch": horizon.updates_per_epoch,
            "base_lr": self.policy.base_lr,
            "scale": self.policy.scale,
            **self._gains(),
            "peak_lr": first.peak,
            "peak_update": first.peak_update,
            "first_lr": first.first,
            "last_lr": first.last,
            "mean_lr": first.area / horizon.total,
            "batches": self.batches(),
            "curves": {
                group: {**course._asdict(), "decay_area": self.decay_area(group)}
                for group, course in self.courses.items()
            },
        }

    def _gains(self) -> dict[str, object]:
        """Under AdaScale: S, and the fewest updates that the T scale-invariant iterations can take."""
        most, total = self.policy.most_gain, self.horizon.total
        return {} if most is None else {"most_gain": most, "fewest_updates": math.ceil(total / most)}

    def sketch(self, width: int = 72, height: int = 10, group: str | None = None) -> list[str]:
        """The curve of a group as lines of block characters, the peak at full height."""
        name = next(iter(self.curves)) if group is None else group
        curve, top = self.curves[name], self.courses[name].peak or 1.0
        width = min(width, len(curve))
        columns = [curve[(2 * i + 1) * len(curve) // (2 * width)] / top for i in range(width)]
        return [
            "".join(_BLOCKS[max(0, min(8, round((value * height - row) * 8)))] for value in columns).rstrip()
            for row in reversed(range(height))
        ]

    @cached_property
    def _trace(self) -> Trace:
        return traced(self.policy, self.horizon.total)
