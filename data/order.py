"""Which samples update `t` trains on: a pure function of (seed, t, slice).

The global batch of an update is B = batch_size · world · accumulate samples, and an epoch is samples // B
updates. Each epoch has its own order, by default a permutation; update u of it takes positions [uB, (u+1)B), cut in
slices of batch_size. Micro-batch `a` on rank `r` is slice a · world + r, so one process that accumulates four
micro-batches trains on the same sets as four processes. The remainder of an order is left out; the next epoch
shuffles anew.

Where the batch grows, update `t` takes the samples of several updates of the starting batch, one after another: the
run sees the same samples in the same order and with the same seeds. The last update of an epoch may extend into the
next.

A divergence guard may leave batches out. `left_out` holds their positions, counted in updates of the layout from the
start of the run: update `t` then takes the t-th position that is not left out, and its seeds follow from the position.

To overfit a net on purpose, the first `repeated` batches are taken again and again: a position then stands for the
batch at this position modulo their number, with the same samples and seeds.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data.bounds import integer

_MASK = (1 << 64) - 1
_BLOCK = 64
"""Micro-batches whose samples are cut at once: that takes half the time of one by one."""
_SEEDS = 256
"""Positions whose seeds are computed at once: that takes a tenth of the time of one by one."""


def mix(seed: int, *coordinates: int) -> int:
    """A hash of (seed, coordinates) to 63 bits: the finaliser of splitmix64, once for each number.

    Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195.

    A coordinate may be an array of uint64, and the hash is then an array.

    >>> hex(mix(0) << 1 | 1)
    '0xe220a8397b1dcdaf'
    """
    state = 0
    for number in (seed, *coordinates):
        state = (state + number + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def permutation(samples: int, seed: int, epoch: int) -> Tensor:
    """The order of `samples` indices in an epoch, (samples,) int64 on the CPU."""
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    return torch.randperm(samples, generator=generator)


@dataclass(frozen=True)
class Layout:
    """How a global batch is split: `accumulate` micro-batches of `batch_size` on each of `world` ranks."""

    batch_size: int
    accumulate: int = 1
    world: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "world"):
            integer(name, getattr(self, name))
        if integer("rank", self.rank, low=0) >= self.world:
            raise ValueError(f"rank={self.rank} must be below world={self.world}.")

    @property
    def slices(self) -> int:
        """Micro-batches in a global batch, over all ranks."""
        return self.accumulate * self.world

    @property
    def global_batch(self) -> int:
        """Samples in an update."""
        return self.batch_size * self.slices

    def slice_of(self, micro: int) -> int:
        """The slice of the global batch that micro-batch `micro` of this rank takes."""
        return micro * self.world + self.rank


class Pick(NamedTuple):
    """The samples of one micro-batch: `indices` (batch_size,) int64 of the given epoch.

    `seed` is that of all random choices made when they are read, beside epoch and index.
    """

    epoch: int
    indices: Tensor
    seed: int = 0


class Order:
    """The order in which one rank sees `samples` training samples; `indices` are on `device`.

    `stages` has (first update, ratio) for each batch size: an update then takes `ratio` updates of the layout.
    `sampling(samples, seed, epoch)` gives the order of an epoch; None stands for a permutation. `left_out` may be set
    to the positions that no update takes, in their order; it may grow while the run trains. `repeated` may be set to
    the number of batches that are taken again and again.
    """

    def __init__(
        self,
        samples: int,
        seed: int,
        layout: Layout,
        device: torch.device | str = "cpu",
        stages: Sequence[tuple[int, int]] = ((0, 1),),
        sampling: Callable[[int, int, int], Tensor] | None = None,
    ) -> None:
        if samples < layout.global_batch:
            raise ValueError(
                f"the {samples} training samples do not fill one global batch of {layout.global_batch}: "
                f"lower data.batch_size, the accumulation or the devices."
            )
        self.samples, self.seed, self.layout = samples, seed, layout
        self.updates_per_epoch = samples // layout.global_batch
        self._device, self._sampling = device, sampling
        self._begins, self._stages = [begin for begin, _ in stages], _placed(stages)
        self.left_out: Sequence[int] = ()
        self.repeated: int | None = None
        self._accumulate, self._plain = layout.accumulate, self._stages == [(0, 0, 1)]
        self._epoch, self._mine = -1, torch.empty(0, dtype=torch.int64)
        self._cut, self._slices = (-1, -1), ()  # type: tuple[int, int], tuple[Tensor, ...]
        self._part, self._seeds = -1, []  # type: int, list[list[int]]

    def pick(self, t: int, micro: int) -> Pick:
        """The samples of micro-batch `micro` of update `t` on this rank."""
        t, micro = self._batch(t, micro)
        epoch, update = divmod(t, self.updates_per_epoch)
        part, place = divmod(update * self._accumulate + micro, _BLOCK)
        if (epoch, part) != self._cut:
            self._cut, self._slices = (epoch, part), self._slices_of(epoch, part)
        return Pick(epoch, self._slices[place], self.seed)

    def _slices_of(self, epoch: int, part: int) -> tuple[Tensor, ...]:
        """The samples of `_BLOCK` micro-batches of this rank; those of the epoch are numbered from 0 in their order."""
        layout = self.layout
        if epoch != self._epoch:
            used = self.updates_per_epoch * layout.global_batch
            slices = self.indices(epoch)[:used].to(self._device).view(-1, layout.world, layout.batch_size)
            self._epoch, self._mine = epoch, slices[:, layout.rank]
        return self._mine[part * _BLOCK : (part + 1) * _BLOCK].unbind()

    def indices(self, epoch: int) -> Tensor:
        """The order of the samples in an epoch, on the CPU. ValueError where the sampling gives no such order."""
        if self._sampling is None:
            return permutation(self.samples, self.seed, epoch)
        found = self._sampling(self.samples, self.seed, epoch)
        used = self.updates_per_epoch * self.layout.global_batch
        if found.dtype != torch.int64 or found.dim() != 1 or len(found) < used:
            raise ValueError(
                f"data.sampling gives {found.dtype} of shape {tuple(found.shape)} for epoch {epoch}: it must give at "
                f"least {used} indices, int64."
            )
        if found.min() < 0 or found.max() >= self.samples:
            raise ValueError(f"data.sampling gives indices outside 0 to {self.samples - 1} for epoch {epoch}.")
        return found

    def picks(self, start: int, end: int) -> Iterator[Pick]:
        """The micro-batches of the updates in [start, end), one by one."""
        return (self.pick(t, micro) for t in range(start, end) for micro in range(self.micro_batches(t)))

    def micro_seed(self, t: int, micro: int) -> int:
        """The seed of augmentation and dropout in a micro-batch: `mix` of the seed, the position and the slice."""
        t, micro = self._batch(t, micro)
        part, place = divmod(t, _SEEDS)
        if part != self._part:
            self._part, self._seeds = part, self._seeds_of(part)
        return self._seeds[place][micro]

    def _seeds_of(self, part: int) -> list[list[int]]:
        """The seeds of the micro-batches of this rank at `_SEEDS` positions."""
        layout = self.layout
        positions = np.arange(part * _SEEDS, (part + 1) * _SEEDS, dtype=np.uint64)[:, None]
        slices = np.array([layout.slice_of(micro) for micro in range(layout.accumulate)], dtype=np.uint64)
        seeds: Any = mix(self.seed, positions, slices)  # type: ignore[arg-type]
        return seeds.tolist()

    def positions(self, t: int) -> list[int]:
        """The positions that update `t` takes."""
        return [self._micro_place(t, micro)[0] for micro in range(0, self.micro_batches(t), self.layout.accumulate)]

    def micro_batches(self, t: int) -> int:
        """The micro-batches of update `t` on this rank."""
        return self.layout.accumulate if self._plain else self.layout.accumulate * self._stage(t)[2]

    def _batch(self, t: int, micro: int) -> tuple[int, int]:
        """The same as `_micro_place`, of the first batches alone where they are repeated."""
        if self._plain and not self.left_out and micro < self.layout.accumulate:
            place, rest = t, micro
        else:
            place, rest = self._micro_place(t, micro)
        return (place, rest) if self.repeated is None else (place % self.repeated, rest)

    def _micro_place(self, t: int, micro: int) -> tuple[int, int]:
        """The update of the layout, and the micro-batch in it, for micro-batch `micro` of update `t`."""
        begin, place, ratio = self._stage(t)
        update, rest = divmod(micro, self.layout.accumulate)
        place += (t - begin) * ratio + update
        for position in self.left_out:
            if position > place:
                break
            place += 1
        return place, rest

    def _stage(self, t: int) -> tuple[int, int, int]:
        last = self._stages[-1]
        return last if t >= last[0] else self._stages[bisect_right(self._begins, t) - 1]


def _placed(stages: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(first update, the update of the layout that it starts with, ratio) of each stage."""
    if not stages or stages[0][0] != 0:
        raise ValueError(f"stages={stages!r}: the first stage begins at update 0.")
    made = [(0, 0, integer("ratio", stages[0][1]))]
    for begin, ratio in stages[1:]:
        last, place, before = made[-1]
        if begin <= last:
            raise ValueError(f"stages={stages!r}: each stage begins after the one before.")
        made.append((begin, place + (begin - last) * before, integer("ratio", ratio)))
    return made
