"""Evaluation on several ranks must count every sample once, and no rank may wait for one with more batches."""

import pytest
import torch

from data.order import Layout
from data.shard import Shard
from data.source import Memory


def shards(samples: int, world: int, batch_size: int) -> list[Shard]:
    source = Memory((torch.arange(samples), torch.arange(samples)))
    return [Shard(source, Layout(batch_size, world=world, rank=rank)) for rank in range(world)]


@pytest.mark.parametrize("samples", [5, 12, 13, 64, 97])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("batch_size", [2, 3, 8, 200])
def test_every_sample_is_seen_once_in_as_many_batches_on_each_rank(samples: int, world: int, batch_size: int) -> None:
    found = [[inputs.tolist() for inputs, _ in shard] for shard in shards(samples, world, batch_size)]
    assert sorted(i for batches in found for batch in batches for i in batch) == list(range(samples))
    assert {len(batches) for batches in found} == {len(shards(samples, world, batch_size)[0])}
    sizes = [len(batch) for batches in found for batch in batches]
    assert min(sizes) >= 1
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 2


def test_one_rank_sees_the_samples_in_order_and_targets_stay_with_inputs() -> None:
    (shard,) = shards(10, 1, 4)
    batches = [(inputs.tolist(), targets.tolist()) for inputs, targets in shard]
    assert batches == [([0, 1, 2, 3],) * 2, ([4, 5, 6],) * 2, ([7, 8, 9],) * 2]


def test_fewer_samples_than_ranks_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="3 samples .* 4 ranks") as error:
        shards(3, 4, 2)
    assert "\n" not in str(error.value)
