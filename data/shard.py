"""The part of a split that one rank evaluates: in order, each sample once over all ranks, without padding."""

from collections.abc import Iterator
from typing import Any

import torch

from data.order import Layout, Pick
from data.source import Source


class Shard:
    """Rank r takes samples r, r + world, … in batches of at most `batch_size`.

    Every rank has the same number of batches (their sizes differ by one at most): a wrapped net may synchronise at each
    forward pass, and a rank with one batch more would wait forever. ValueError if there are fewer samples than ranks.
    """

    def __init__(self, source: Source, layout: Layout) -> None:
        if len(source) < layout.world:
            raise ValueError(f"{len(source)} samples cannot be evaluated on {layout.world} ranks: use fewer devices.")
        self.source, self.layout = source, layout

    def __len__(self) -> int:
        fewest, most = len(self.source) // self.layout.world, -(-len(self.source) // self.layout.world)
        return min(fewest, -(-most // self.layout.batch_size))

    def __iter__(self) -> Iterator[Any]:
        mine = torch.arange(self.layout.rank, len(self.source), self.layout.world, device=self.source.home)
        return self.source.batches(Pick(0, indices) for indices in mine.tensor_split(len(self)))
