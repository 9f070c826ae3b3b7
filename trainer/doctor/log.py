"""The log of a run, read from its folder, in the form that the signs need."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from trainer.cli.plain_yaml import read_yaml
from trainer.files.plain import read_record
from trainer.log.scalars import scalars
from trainer.lr import ConfigError

PLAN = "plan.json"
PLAN_KEYS = ("total_updates", "warmup_updates", "global_batch", "base_lr")


class Finding(NamedTuple):
    """What is wrong with a run: the `sign`, the evidence in words, the `measure` and the `threshold` that it passed.

    `source` says where the threshold comes from; `override` is what to try, as an argument of `cadence train`. A `note`
    tells of a run that learns as it should: its best checkpoint is from before, or its warm-up could be longer.
    """

    sign: str
    seen: str
    measure: float
    threshold: float
    source: str
    override: str
    note: bool = False

    @property
    def heading(self) -> str:
        """The sign, and whether it is a note."""
        return f"{self.sign} (a note)" if self.note else self.sign


@dataclass(frozen=True)
class Series:
    """The values of a tag and their updates, in order."""

    updates: Sequence[int] = ()
    values: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.values)

    def between(self, first: float, end: float) -> list[float]:
        """The values of the updates in [first, end)."""
        return [value for t, value in zip(self.updates, self.values) if first <= t < end]

    def middle(self, first: float, end: float) -> float | None:
        """Their median."""
        values = self.between(first, end)
        return median(values) if values else None


@dataclass(frozen=True)
class Log:
    """A run so far: what was logged by tag, and what its plan says.

    `total` is T, `warmup` W, `batch_size` the global batch, in the units of the plan; `weight_decay` is that of the
    optimizer, and `error` the line that a failed run left.
    """

    series: Mapping[str, Series]
    total: int
    warmup: int = 0
    batch_size: int = 1
    lr: float | None = None
    weight_decay: float = 0.0
    error: str = ""
    _none: Series = field(default=Series(), repr=False)

    def __getitem__(self, tag: str) -> Series:
        return self.series.get(tag, self._none)

    def of_groups(self, prefix: str, name: str) -> dict[str, Series]:
        """The series `prefix/GROUP/name` by group."""
        ends = (f"{prefix}/", f"/{name}")
        return {
            tag[len(ends[0]) : -len(ends[1])]: series
            for tag, series in self.series.items()
            if tag.startswith(ends[0]) and tag.endswith(ends[1]) and len(tag) > len(ends[0]) + len(ends[1]) - 1
        }

    def finite(self, tag: str) -> Series:
        """The series without the values that are not finite."""
        series = self[tag]
        kept = [(t, value) for t, value in zip(series.updates, series.values) if math.isfinite(value)]
        return Series([t for t, _ in kept], [value for _, value in kept])

    @cached_property
    def loss(self) -> Series:
        """The training loss of each update, where it is finite."""
        return self.finite("train/loss")

    @property
    def rate(self) -> Series:
        """The learning rate that was applied to the first group."""
        return next((series for tag, series in self.series.items() if tag.startswith("lr/")), self._none)

    @property
    def made(self) -> int:
        """How many updates the run has made."""
        updates = self["train/loss"].updates
        return updates[-1] + 1 if updates else 0


def read_log(folder: Path) -> Log:
    """What a run has left in its folder, whether it is done, failed or still going on.

    Raises:
        ConfigError: the folder is not that of a run, or has no TensorBoard log.
    """
    plan = read_record(folder / PLAN)
    if not plan:
        raise ConfigError(f"{folder} is not the folder of a run, or of a sweep: it has no {PLAN} that can be read.")
    if lost := [key for key in PLAN_KEYS if not isinstance(plan.get(key), int | float)]:
        raise ConfigError(
            f"{folder / PLAN} lacks {', '.join(lost)}, or has no number there: it is not the plan of a run."
        )
    total, warmup, batch, lr = (plan[key] for key in PLAN_KEYS)
    error = str(read_record(folder / "result.json").get("error", ""))
    return Log(
        read_scalars(folder), total, warmup, batch, lr, weight_decay_of(read_yaml(folder / "config.yaml")), error
    )


def weight_decay_of(config: Mapping[str, Any]) -> float:
    """The weight decay that a config sets for its optimizer; 0 where it sets none."""
    found = (config.get("optimizer") or {}).get("weight_decay")
    return float(found) if isinstance(found, int | float) else 0.0


def read_scalars(folder: Path) -> dict[str, Series]:
    """Every scalar of the TensorBoard log in `folder`.

    Raises:
        ConfigError: there is no log of a training loss.
    """
    found = scalars(folder)
    if "train/loss" not in found:
        raise ConfigError(f"{folder} holds no log of a training loss: train with logger=tensorboard.")
    return {tag: Series([t for t, _ in points], [value for _, value in points]) for tag, points in found.items()}
