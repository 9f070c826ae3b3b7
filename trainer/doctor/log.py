"""What has been logged of a run, in the shape that a diagnosis asks for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import NamedTuple

BLOCKS = 20
"""A run is looked at in so many parts of equal length, each by its median."""


class Finding(NamedTuple):
    """What is wrong with a run, by its `sign`; the number that shows it and the one that it must not pass.

    `source` says where the threshold comes from, `override` what to try: it goes behind `python train.py`.
    """

    sign: str
    seen: str
    measure: float
    threshold: float
    source: str
    override: str


@dataclass(frozen=True)
class Series:
    """The values of a tag, and the updates that they belong to, in order."""

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
    """A run so far: what was logged by tag, how long it is to be, how it ended, where that is known.

    `total` is T, `warmup` W, `batch_size` the global batch, all in the units of the plan; `error` is the line that a
    failed run left.
    """

    series: Mapping[str, Series]
    total: int
    warmup: int = 0
    batch_size: int = 1
    lr: float | None = None
    error: str = ""
    _none: Series = field(default=Series(), repr=False)

    def __getitem__(self, tag: str) -> Series:
        return self.series.get(tag, self._none)

    def of_groups(self, room: str, name: str) -> dict[str, Series]:
        """The series `room/GROUP/name` by group."""
        ends = (f"{room}/", f"/{name}")
        return {
            tag[len(ends[0]) : -len(ends[1])]: series
            for tag, series in self.series.items()
            if tag.startswith(ends[0]) and tag.endswith(ends[1]) and len(tag) > len(ends[0]) + len(ends[1]) - 1
        }

    def finite(self, tag: str) -> Series:
        """The series without what is not finite."""
        series = self[tag]
        kept = [(t, value) for t, value in zip(series.updates, series.values) if math.isfinite(value)]
        return Series([t for t, _ in kept], [value for _, value in kept])

    @cached_property
    def loss(self) -> Series:
        """The training loss of each update, where it is finite."""
        return self.finite("train/loss")

    @property
    def rate(self) -> Series:
        """The learning rate that was applied: the first group's."""
        return next((series for tag, series in self.series.items() if tag.startswith("lr/")), self._none)

    @property
    def made(self) -> int:
        """How many updates there are of."""
        every = self["train/loss"].updates
        return every[-1] + 1 if every else 0

    def blocks(self, series: Series) -> list[tuple[int, float]]:
        """The median of each of `BLOCKS` parts of the run so far, with the update at which the part begins."""
        edges = [round(self.made * i / BLOCKS) for i in range(BLOCKS + 1)]
        found = [(a, series.middle(a, b)) for a, b in pairwise(edges)]
        return [(a, value) for a, value in found if value is not None]
