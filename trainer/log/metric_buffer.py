"""The metrics of every update, kept on the device until they are flushed to the loggers."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor

from trainer.log.run_logger import RunLogger
from trainer.lr import LRPolicy

VARYING = ("scale", "warmup", "schedule", "plateau", "backoff")
"""The factors that may change with the update; the table at the start of the run shows the others."""
FACTORS = "x_lr_factors"
"""The group of the factors. TensorBoard sorts its groups by name: this one comes after `lr`, `train` and `val`."""
RESERVED = frozenset({"loss", "grad_norm", "samples_per_second"})
"""Names below `train/` that every run logs."""


class Applied(Protocol):
    """The values applied in an update: each group's rate, plateau and backoff, `t` and the gain, scheduled settings.

    Where groups have clocks of their own, `t` is a list with the place of each on its curve.
    """

    applied: list[float]
    plateau: float
    backoff: float
    place: tuple[int | list[int], float]
    values: dict[str, list[float]]


class Observation(NamedTuple):
    """The measurements of an update: a vector on the device, and `named`, which gives its values by tag."""

    numbers: Tensor
    named: Callable[[list[float]], dict[str, float]]


@dataclass
class MetricBuffer:
    """A buffer with one row per applied update. Adding a row never synchronises the device; `columns` does."""

    updates: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    measures: list[Tensor] = field(default_factory=list)
    lrs: list[list[float]] = field(default_factory=list)
    plateaus: list[float] = field(default_factory=list)
    backoffs: list[float] = field(default_factory=list)
    places: list[tuple[int | list[int], float]] = field(default_factory=list)
    values: list[dict[str, list[float]]] = field(default_factory=list)
    seen: list[Observation | None] = field(default_factory=list)
    logs: list[Mapping[str, Tensor]] = field(default_factory=list)
    since: float = 0.0
    charted: set[str] = field(default_factory=set)
    """The factors that are logged where they are 1, too, by tag; others join at their first value that is not 1."""

    def __len__(self) -> int:
        return len(self.updates)

    def add(
        self,
        t: int,
        loss: Tensor,
        grad_norm: Tensor,
        with_: Applied,
        seen: Observation | None = None,
        logs: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        """Add update `t`: its loss and gradient norm, the applied values, measurements, and the logs of its step.

        Loss, norm and logs are scalars on the device.
        """
        self.updates.append(t)
        self.times.append(time.time())
        self.measures += (loss, grad_norm)
        self.lrs.append(with_.applied)
        self.plateaus.append(with_.plateau)
        self.backoffs.append(with_.backoff)
        self.places.append(with_.place)
        self.values.append(with_.values)
        self.seen.append(seen)
        self.logs.append(logs)

    def columns(self, policy: LRPolicy, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, list[Any]]:
        """The rows so far by tag: losses, gradient norms and logs (means over the ranks), rates and their factors.

        Columns of logs and measurements hold None in the rows of updates that were not measured.
        """
        losses, norms = over_ranks(torch.stack(self.measures).view(-1, 2)).T.tolist()
        columns = {"train/loss": losses, "train/grad_norm": norms, **self._logged(over_ranks)}
        varying = VARYING[1:] if policy.most_gain is None else VARYING
        for i, (name, factors) in enumerate(self._factors(policy)):
            columns[f"lr/{name}"] = [row[i] for row in self.lrs]
            series = {f"{FACTORS}/{name}/{key}": [row[key] for row in factors] for key in varying}
            columns |= {tag: values for tag, values in series.items() if self._is_charted(tag, values)}
        for key, schedule in policy.hyper_schedules.items():
            names = (
                [f"hyper_schedule/{name}/{key}" for name in policy.groups]
                if len(schedule.bases) > 1
                else [f"hyper_schedule/{key}"]
            )
            columns |= {name: [row[key][i] for row in self.values] for i, name in enumerate(names)}
        return columns | self._observed()

    def _is_charted(self, tag: str, values: Iterable[float]) -> bool:
        if tag not in self.charted and any(value != 1.0 for value in values):
            self.charted.add(tag)
        return tag in self.charted

    def _factors(self, policy: LRPolicy) -> Iterator[tuple[str, list[dict[str, float]]]]:
        """Each group with the varying factors of its rows; groups of one schedule and one clock share them."""
        own_clocks = any(isinstance(at, list) for at, _ in self.places)
        known: dict[tuple[int, int | None], list[dict[str, float]]] = {}
        for i, name in enumerate(policy.groups):
            kind = (id(policy.schedule_of(name)), i if own_clocks else None)
            if kind not in known:
                rows = zip(self.places, self.plateaus, self.backoffs)
                known[kind] = [
                    policy.explain(at[i] if isinstance(at, list) else at, name, plateau, gain, backoff)
                    for (at, gain), plateau, backoff in rows
                ]
            yield name, known[kind]

    def _logged(self, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, list[float | None]]:
        """The logs of the steps by tag, read from the device in one transfer."""
        if not any(self.logs):
            return {}
        numbers = iter(over_ranks(torch.stack([value for row in self.logs for value in row.values()])).tolist())
        rows = [{f"train/{name}": next(numbers) for name in row} for row in self.logs]
        return {tag: [row.get(tag) for row in rows] for tag in dict.fromkeys(chain(*rows))}

    def _observed(self) -> dict[str, list[float | None]]:
        """The measurements by tag, read from the device in one transfer."""
        observed = [row for row in self.seen if row is not None]
        if not observed:
            return {}
        numbers = iter(torch.cat([row.numbers for row in observed]).tolist())
        rows = [row.named(list(islice(numbers, len(row.numbers)))) if row is not None else {} for row in self.seen]
        return {tag: [row.get(tag) for row in rows] for tag in dict.fromkeys(chain(*rows))}

    def speed(self) -> float:
        """Updates per second since the buffer was last cleared."""
        seconds = self.times[-1] - self.since
        return len(self.updates) / seconds if seconds > 0 else 0.0

    def clear(self) -> None:
        """Drop the rows; the speed is measured from now on."""
        self.updates, self.times, self.measures = [], [], []
        self.lrs, self.plateaus, self.backoffs, self.places = [], [], [], []
        self.values, self.seen, self.logs = [], [], []
        self.since = time.time()


def changing_factors(policy: LRPolicy, total: int) -> set[str]:
    """The tags of the warm-ups and schedules that are not 1 in all of a run's `total` updates.

    A long run is looked at in its first and last updates and in 10,000 others.
    """
    places = {total - 1, *range(min(total, 10_000)), *range(0, total, max(1, total // 10_000))}
    warms = any(policy.warmup.factor(t) != 1.0 for t in places)
    tags = {f"{FACTORS}/{name}/warmup" for name in policy.groups} if warms else set()
    common = {id(rule): any(rule(t) != 1.0 for t in places) for rule in map(policy.schedule_of, policy.groups)}
    return tags | {f"{FACTORS}/{name}/schedule" for name in policy.groups if common[id(policy.schedule_of(name))]}


def log_updates(
    loggers: Iterable[Logger],
    updates: Sequence[int],
    times: Sequence[float],
    columns: dict[str, list[Any]],
    samples_per_second: float,
) -> None:
    """Log every update with all its values, in our loggers with its wall time; and the speed."""
    for logger in loggers:
        if isinstance(logger, RunLogger):
            logger.log_updates(updates, times, columns)
        else:
            for i, t in enumerate(updates):
                logger.log_metrics({tag: column[i] for tag, column in columns.items() if column[i] is not None}, t)
        logger.log_metrics({"train/samples_per_second": samples_per_second}, updates[-1])
