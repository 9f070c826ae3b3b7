"""Each sample has a seed of its own: random transforms are the same however the reading is split and begun."""

import multiprocessing
import random
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from data.module import DataModule, Splits
from data.order import Layout, Order, Pick
from data.reader import SampleError
from data.seeds import seed_generators
from data.shard import Shard
from data.source import Workers
from data.stream import Loop, Stream
from data.tree import fingerprint, tensors
from models.gpt import GPT
from models.mlp import MLP
from models.resnet import ResNet9
from tests.data.own_sets import Mixed
from trainer.engine.update import Backward, draw_from_torch

SAMPLES = 24


class Noisy(torch.utils.data.Dataset):
    """Samples with a number from each of the three generators."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Any]:
        drawn = [torch.rand(()).item(), np.random.rand(), random.random()]  # noqa: NPY002
        return {"id": f"row {index}", "index": index, "drawn": torch.tensor(drawn, dtype=torch.float64)}


def masked(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch with random numbers of its own, as of a collator that masks words."""
    batch = {name: [sample[name] for sample in samples] for name in ("id", "index")}
    batch["drawn"] = torch.stack([sample["drawn"] for sample in samples])
    return {**batch, "mask": torch.rand(len(samples)), "numpy": np.random.rand(), "random": random.random()}  # noqa: NPY002


def batches(source: Workers, layout: Layout, start: int = 0, seed: int = 3) -> list[Any]:
    loop = Loop(total=12, validation_interval=4, steps_per_execution=3, accumulate=layout.accumulate)
    stream = Stream(source, Order(len(source), seed, layout), lambda: start, loop)
    return [micro.batch for chunk in stream for update in chunk for micro in update]


def prints(found: list[Any]) -> list[str]:
    return [fingerprint(batch) for batch in found]


@pytest.mark.parametrize("collate_fn", [None, masked])
def test_transforms_are_the_same_for_all_workers_ranks_and_resumes(collate_fn: Any) -> None:
    """Twelve updates of two slices: 0, 1 and 3 workers; one rank that accumulates, or two; from any update on."""
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    whole = [one for t in (0, 4, 8) for one in prints(batches(Workers(Noisy(), 0, collate_fn), Layout(4, 2), t))]
    assert len(set(whole)) == 24, "no epoch repeats the draws of another"
    for workers in (1, 3):
        source = Workers(Noisy(), workers, collate_fn)
        for start in (9, 0, 2):
            assert prints(batches(source, Layout(4, 2), start)) == whole[2 * start : 2 * (start // 4 + 1) * 4]
    for rank in range(2):
        own = batches(Workers(Noisy(), rank, collate_fn), Layout(4, 1, 2, rank))
        assert prints(own) == whole[rank:8:2]


def test_the_draws_follow_the_seed_of_the_run_and_no_generator_of_the_main_process_moves() -> None:
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    one, other = (batches(Workers(Noisy(), 0), Layout(4), seed=seed) for seed in (1, 2))
    drawn = [dict(zip(batch["index"].tolist(), batch["drawn"].tolist())) for found in (one, other) for batch in found]
    first, second = ({index: row for part in parts for index, row in part.items()} for parts in (drawn[:4], drawn[4:]))
    both = first.keys() & second.keys()
    assert both
    assert not any(a == b for index in both for a, b in zip(first[index], second[index]))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1][1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_one_worker_draws_by_the_seed_of_the_run() -> None:
    """The generator of workers once had a constant seed."""
    found = [batches(Workers(Noisy(), 1), Layout(SAMPLES), seed=seed)[0] for seed in (1, 2, 1)]
    rows = [dict(zip(batch["index"].tolist(), map(tuple, batch["drawn"].tolist()))) for batch in found]
    assert rows[0] == rows[2]
    assert not any(rows[0][index] == rows[1][index] for index in rows[0])


def test_a_sample_is_evaluated_with_the_same_draws_in_every_pass_and_on_every_rank() -> None:
    source = Workers(Noisy(), 0)

    def rows(world: int, batch_size: int) -> dict[int, tuple[float, ...]]:
        shards = [Shard(source, Layout(batch_size, world=world, rank=rank)) for rank in range(world)]
        parts = [batch for shard in shards for batch in shard]
        return {i: tuple(row) for part in parts for i, row in zip(part["index"].tolist(), part["drawn"].tolist())}

    assert rows(1, 8) == rows(1, 5) == rows(2, 4)


def flips(rows: dict[str, list]) -> dict[str, list]:
    return {"x": [torch.rand(()) + x for x in rows["x"]]}


def test_a_set_of_datasets_with_a_transform_is_read_sample_by_sample_and_without_one_at_once() -> None:
    plain = datasets.Dataset.from_dict({"x": [float(i) for i in range(SAMPLES)]})
    changed = plain.with_transform(flips)
    layouts = [Layout(4, 2), Layout(8)]
    drawn = [torch.cat([batch["x"] for batch in batches(Workers(changed, 0), layout)]) for layout in layouts]
    assert torch.equal(*drawn), "the draws do not depend on the size of a batch"
    assert (drawn[0].frac() > 0).all()
    kept = [
        torch.cat([batch["x"] for batch in batches(Workers(plain.with_format("torch"), w), layouts[0])]) for w in (0, 1)
    ]
    assert torch.equal(*kept)
    assert torch.equal(kept[0], drawn[0].floor())


class RowByRow(TensorDataset):
    """Read as any data set of one's own."""


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_of_tensors_are_read_at_once_with_the_same_batches(workers: int) -> None:
    held = torch.randn(SAMPLES + 8, 2, 3), torch.arange(SAMPLES + 8)
    chosen = torch.randperm(SAMPLES + 8)[:SAMPLES].tolist()
    one, other = (Workers(Subset(kind(*held), chosen), workers) for kind in (TensorDataset, RowByRow))
    assert one.reader._holds_tensors
    assert not other.reader._holds_tensors
    assert prints(batches(one, Layout(4, 2))) == prints(batches(other, Layout(4, 2)))


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_of_tensors_that_cannot_be_read_are_named(workers: int) -> None:
    source = Workers(Subset(TensorDataset(torch.arange(4)), [0, 1, 9]), workers)
    with pytest.raises(SampleError, match=r"data: samples 0, 2 of Subset cannot be read: IndexError: index 9"):
        next(iter(source.batches([Pick(0, torch.tensor([0, 2]), 0)])))


class Broken(Noisy):
    def __getitem__(self, index: int) -> Any:
        if index == 7:
            raise OSError("the file is cut off")
        return {"x": torch.ones(2 + (index == 3))}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_named_by_its_index(workers: int) -> None:
    source = Workers(Broken(), workers)
    with pytest.raises(SampleError) as error:
        list(source.batches([Pick(0, torch.tensor([0, 7]))]))
    assert str(error.value) == "data: sample 7 of Broken cannot be read: OSError: the file is cut off"
    assert "__getitem__" in error.value.__notes__[0]
    said = "data: samples {}, 1, 2, … of Broken do not make a batch, because of 3: RuntimeError: "
    for first in ([3, 0], [0, 3]):
        with pytest.raises(SampleError, match=said.format(", ".join(map(str, first)))):
            list(Workers(Broken(), workers).batches([Pick(0, torch.tensor([*first, 1, 2, 4]))]))


def test_a_sample_that_is_none_is_named_and_where_all_are_wrong_none_is() -> None:
    rows = [torch.ones(2), torch.ones(2), None, torch.ones(2)]
    with pytest.raises(SampleError, match="do not make a batch, because of 2: TypeError: "):
        list(Workers(rows, 0).batches([Pick(0, torch.arange(4))]))
    with pytest.raises(SampleError, match="samples 0, 1 of list do not make a batch: TypeError: "):
        list(Workers([None, None], 0).batches([Pick(0, torch.arange(2))]))


@pytest.mark.parametrize("wrap", [lambda row: row, lambda row: {"text": row}, lambda row: (0, [row])])
def test_lists_of_numbers_are_not_transposed(wrap: Any) -> None:
    rows = [wrap({"input_ids": [1, 2, 3]}), wrap({"input_ids": [4, 5, 6]})]
    with pytest.raises(SampleError, match="'input_ids' is a list of numbers: give tensors, or a collate_fn"):
        list(Workers(rows, 0).batches([Pick(0, torch.tensor([0, 1]))]))


class Flipped(torch.utils.data.Dataset):
    """A pair whose inputs are flipped at random."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = torch.linspace(-1, 1, 5) * (index % 2 + 1)
        return (row.flip(0) if torch.rand(()) < 0.5 else row) + torch.randn(5), index % 2


class FlippedData(DataModule):
    def __init__(self, *, num_workers: int = 0, **base: Any) -> None:
        super().__init__(**base)
        self.num_workers = num_workers

    @property
    def shape(self) -> dict[str, int]:
        return {"in_features": 5, "classes": 2}

    def read(self) -> Splits:
        return Splits(Workers(Flipped(), self.num_workers), Workers(Flipped(), 0))


def test_claims_of_random_samples_are_the_same_on_each_rank() -> None:
    claims = []
    for _ in range(2):
        module = FlippedData(batch_size=4)
        module.setup()
        claims.append(module.claims())
    assert claims[0] == claims[1]
    batch = next(module.random_batches(0, 3, 4, 2)).batch
    assert [tensor.shape for tensor in tensors(batch)] == [(4, 5), (4,)]
    assert torch.equal(batch[0], next(module.random_batches(0, 3, 4, 2)).batch[0])
    assert len(module.validation_samples(3)[0]) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_with_random_transforms_resumes_to_the_same_bits(assembled: Any, workers: int) -> None:
    from trainer.checkpoint.io import checkpoint_path
    from trainer.run import fit

    words = (
        *("data=dataset", *(f"data.{name}={{_target_:{__name__}.Flipped}}" for name in ("train", "val"))),
        *(f"allow=[{__name__.partition('.')[0]}]", "data.shape={in_features:5,classes:2}", "logger=none"),
        *("data.batch_size=4", "trainer.accumulate=2", "trainer.duration=20", "trainer.validate=10"),
        *("trainer.checkpoint=1", "trainer.keep=0", "model.hidden=[8]", "trainer.steps_per_execution=4"),
        f"data.num_workers={workers}",
    )
    whole = assembled(*words, f"seed={workers}")
    before = {child.pid for child in multiprocessing.active_children()}  # those of loaders of other tests
    fit(whole)
    assert {child.pid for child in multiprocessing.active_children()} <= before  # the workers have ended with the fit
    for start in (3, 13):
        path = checkpoint_path(whole.checkpointing.folder, start)
        resumed = assembled(*words, f"seed={workers}", folder=f"from{start}", resumed=path)
        fit(resumed)
        ended = resumed.module.net.state_dict()
        assert all(torch.equal(value, ended[name]) for name, value in whole.module.net.state_dict().items())


def test_the_run_seeds_the_generators_as_the_data_does():
    """Data and engine cannot import each other, so each has a function that seeds all three."""
    found = []
    for seed in (seed_generators, Backward(torch.device("cpu")).reseed):
        seed(2**40 + 7)
        found.append((torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()))  # noqa: NPY002
    assert found[0] == found[1]


def test_nets_that_draw_from_torch_alone_say_so_in_their_file():
    nets = (MLP(4, 2, (3,)), GPT(5, 4, 8, 1, 2), ResNet9(1, 2))
    assert all(draw_from_torch(net) for net in nets)
    assert not draw_from_torch(Mixed(2, [3]))
    assert not draw_from_torch(torch.nn.Sequential(nets[0], Mixed(2, [3])))
