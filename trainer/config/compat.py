"""Other tools' conventions for a curve: its ramp, milestones, floors and last update."""

from dataclasses import dataclass, field, replace
from typing import Any

import trainer.lr
from trainer.config.instantiate import check_names
from trainer.config.settings import CurveSettings
from trainer.lr import ConfigError, Convention, Horizon, Schedule
from trainer.lr.bounds import integer, number
from trainer.lr.schedule import annotate, annotations


@dataclass(frozen=True)
class Compat:
    """The `compat` config, checked: how the curve of `schedule` is read.

    ramp, shift: see `Convention`. absolute, last, from_start, exact: lists of schedules, or ["all"]. absolute: their
    floor is a learning rate, not a share of the peak. last: they reach it at update T-1, not T. from_start: they count
    from the start of the run, and the warm-up replaces their beginning. exact: they and the warm-up before them may
    bend, turn or end between two updates. round: how durations elsewhere become whole updates, "nearest", "up" or
    "down". start: whether `warmup.start` is a "share" of the peak or an "lr". every: "update", or "epoch" where the
    rate changes at the end of an epoch only.
    """

    schedule: str
    ramp: str
    absolute: list[str]
    last: list[str]
    from_start: list[str]
    shift: int
    start: str
    every: str
    exact: list[str] = field(default_factory=list)
    round: str = "nearest"

    def __post_init__(self) -> None:
        for name, known in (("start", ("share", "lr")), ("every", ("update", "epoch"))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"compat.{name}={getattr(self, name)!r} is not known: choose one of {', '.join(known)}."
                )
        for name in ("absolute", "last", "from_start", "exact"):
            if not isinstance(getattr(self, name), list):
                raise ConfigError(f"compat.{name}={getattr(self, name)!r} is not a list: name schedules, or [all].")
            for word in getattr(self, name):
                if word != "all" and not callable(getattr(trainer.lr, str(word), None)):
                    raise ConfigError(f"compat.{name}: there is no schedule {word}: name its function, or [all].")

    @classmethod
    def of(cls, curve: CurveSettings) -> "Compat":
        """From the curve's settings."""
        check_names("compat", cls, curve.compat, filled=["schedule"])
        return cls(schedule=str(curve.schedule.get("_target_")).rpartition(".")[2], **curve.compat)

    def horizon(self, length: Horizon) -> Horizon:
        """The same length, with this convention."""
        why = "it is how many updates, or epochs, after its milestone a stair falls."
        shift = integer("compat.shift", self.shift, why, low=-(10**9), high=10**9) * self._unit(length)
        early, exact = int(self._among(self.last)), self._among(self.exact)
        return replace(length, convention=Convention(self.ramp, early, shift, self.round, exact))

    def warmup_mode(self, given: str) -> str:
        """The warm-up mode, where the config says `given`."""
        return "replace" if self._among(self.from_start) else given

    def relative(self, node: Any, peak: float) -> Any:
        """The settings of a schedule and of its parts, with each absolute floor as a share of `peak`."""
        if isinstance(node, list):
            return [self.relative(item, peak) for item in node]
        if not isinstance(node, dict):
            return node
        made = {name: self.relative(value, peak) for name, value in node.items()}
        name = str(made.get("_target_")).rpartition(".")[2]
        if not (name in self.absolute or "all" in self.absolute) or not made.get("floor") or not peak:
            return made
        floor = number("floor", made["floor"], "in this convention it is a learning rate.", low=0.0)
        if floor > peak:
            raise ConfigError(
                f"lint floor-above-group: floor={floor} of {name} lies above {peak:.4g}, the peak of a group: lower it."
            )
        return {**made, "floor": floor / peak}

    def held(self, curve: Schedule, length: Horizon) -> Schedule:
        """The curve, or with every="epoch" its value at the first update of each epoch."""
        if self.every == "update":
            return curve
        epoch = self._unit(length)
        places = {kind: tuple(-(-t // epoch) * epoch for t in updates) for kind, updates in annotations(curve).items()}
        places["jumps"] = tuple(range(epoch, length.total, epoch))
        return annotate(lambda t: curve(t - t % epoch), **places)

    def _unit(self, length: Horizon) -> int:
        """The updates between two changes of the rate: 1, or those of an epoch."""
        if self.every == "update":
            return 1
        if not length.updates_per_epoch:
            raise ConfigError("compat.every=epoch: the updates of an epoch are not known: set data.samples.")
        return length.updates_per_epoch

    def _among(self, names: list[str]) -> bool:
        return self.schedule in names or "all" in names
