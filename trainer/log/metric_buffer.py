"""What every update did, kept on the device and drained now and then."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from trainer.lr import LRPolicy

VARYING = ("warmup", "schedule", "plateau")
"""The factors that change with the update; the others stand in the table at the start of the run."""


class Applied(Protocol):
    """What an update was applied with: a rate for each group, its factors, the place on the curve, other values."""

    applied: list[float]
    plateau: float
    place: tuple[int, float]
    values: dict[str, list[float]]


class Observation(NamedTuple):
    """What was observed of an update: a vector of numbers on the device, and what gives them as values by tag."""

    numbers: Tensor
    named: Callable[[list[float]], dict[str, float]]


@dataclass
class MetricBuffer:
    """A buffer with one row per applied update. Adding a row never synchronises the device; draining does."""

    updates: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    measures: list[Tensor] = field(default_factory=list)
    lrs: list[list[float]] = field(default_factory=list)
    plateaus: list[float] = field(default_factory=list)
    places: list[tuple[int, float]] = field(default_factory=list)
    values: list[dict[str, list[float]]] = field(default_factory=list)
    seen: list[Observation | None] = field(default_factory=list)
    since: float = 0.0

    def __len__(self) -> int:
        return len(self.updates)

    def add(self, t: int, loss: Tensor, grad_norm: Tensor, with_: Applied, seen: Observation | None = None) -> None:
        """Note update `t`: its loss and gradient norm (scalars on the device), what it was applied with, and more."""
        self.updates.append(t)
        self.times.append(time.time())
        self.measures += (loss, grad_norm)
        self.lrs.append(with_.applied)
        self.plateaus.append(with_.plateau)
        self.places.append(with_.place)
        self.values.append(with_.values)
        self.seen.append(seen)

    def columns(self, policy: LRPolicy, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, list[Any]]:
        """The rows so far by tag: losses (means over the processes), gradient norms, rates and their factors.

        And what was observed: None in the rows of updates where it was not.
        """
        losses, norms = over_ranks(torch.stack(self.measures).view(-1, 2)).T.tolist()
        columns = {"train/loss": losses, "train/grad_norm": norms}
        varying = VARYING if policy.most_gain is None else ("scale", *VARYING)
        for i, name in enumerate(policy.groups):
            factors = [
                policy.explain(at, name, plateau, gain) for (at, gain), plateau in zip(self.places, self.plateaus)
            ]
            columns[f"lr/{name}"] = [row[i] for row in self.lrs]
            columns |= {f"lr_factors/{name}/{key}": [row[key] for row in factors] for key in varying}
        for key, dial in policy.hyper_schedules.items():
            names = (
                [f"hyper_schedule/{name}/{key}" for name in policy.groups]
                if len(dial.bases) > 1
                else [f"hyper_schedule/{key}"]
            )
            columns |= {name: [row[key][i] for row in self.values] for i, name in enumerate(names)}
        return columns | self._observed()

    def _observed(self) -> dict[str, list[float | None]]:
        """What was observed by tag, read from the device at once."""
        observed = [row for row in self.seen if row is not None]
        if not observed:
            return {}
        numbers = iter(torch.cat([row.numbers for row in observed]).tolist())
        rows = [row.named(list(islice(numbers, len(row.numbers)))) if row is not None else {} for row in self.seen]
        return {tag: [row.get(tag) for row in rows] for tag in dict.fromkeys(chain(*rows))}

    def speed(self) -> float:
        """Updates per second since the journal was last cleared."""
        seconds = self.times[-1] - self.since
        return len(self.updates) / seconds if seconds > 0 else 0.0

    def clear(self) -> None:
        """Forget the rows; the time starts afresh."""
        self.updates, self.times, self.measures = [], [], []
        self.lrs, self.plateaus, self.places, self.values, self.seen = [], [], [], [], []
        self.since = time.time()
