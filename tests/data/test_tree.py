"""Batches are nests: whatever is done to a tensor is done to each one in them, and all else is left as it is."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import BatchEncoding

from data.order import Layout, Order, Pick
from data.shard import Shard
from data.source import Memory
from data.tree import fingerprint, mapped, moved, samples, tensors
from trainer.engine import step


@dataclass
class Pair:
    inputs: Any
    name: str | None = "pair"


class Named(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True)
class Frozen:
    inputs: Any


LEAVES = st.integers(0, 9).map(lambda n: torch.full((3, 2), n)) | st.sampled_from(["id", None, 7, 0.5])
NESTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), inner)
        | st.builds(Pair, inner)
        | st.builds(Named, inner, inner)
        | st.dictionaries(st.sampled_from("abc"), LEAVES).map(lambda parts: BatchEncoding(data=parts))
        | st.dictionaries(st.sampled_from("abc"), inner).map(OrderedDict)
    ),
    max_leaves=8,
)


def shape(tree: Any) -> Any:
    """The classes in a nest, without its tensors."""
    if isinstance(tree, Tensor):
        return Tensor
    parts = tree.data if isinstance(tree, BatchEncoding) else vars(tree) if isinstance(tree, Pair) else tree
    if isinstance(parts, dict):
        return type(tree), [(name, shape(part)) for name, part in parts.items()]
    return (type(tree), [shape(part) for part in tree]) if isinstance(tree, list | tuple) else tree


@given(NESTS)
def test_a_function_is_applied_to_each_tensor_and_the_nest_stays(tree: Any) -> None:
    added = mapped(tree, lambda tensor: tensor + 1)
    assert shape(added) == shape(tree)
    assert all(torch.equal(new, old + 1) for new, old in zip(tensors(added), tensors(tree), strict=True))
    assert shape(mapped(tree, lambda tensor: tensor)) == shape(tree)


@given(NESTS)
def test_two_functions_one_after_the_other_are_their_composition(tree: Any) -> None:
    one_by_one = mapped(mapped(tree, lambda tensor: tensor + 1), lambda tensor: 2 * tensor)
    assert fingerprint(one_by_one) == fingerprint(mapped(tree, lambda tensor: 2 * (tensor + 1)))


@given(NESTS)
def test_the_engine_finds_the_same_tensors_and_counts_the_same_samples(tree: Any) -> None:
    assert all(ours is theirs for ours, theirs in zip(tensors(tree), step.tensors(tree), strict=True))
    if tensors(tree):
        assert samples(tree) == step.samples(tree) == 3


@given(NESTS)
def test_moving_keeps_values_and_the_fingerprint_tells_other_values_apart(tree: Any) -> None:
    there = moved(tree, torch.device("cpu"))
    assert fingerprint(there) == fingerprint(tree)
    if tensors(tree):
        assert fingerprint(mapped(tree, lambda tensor: tensor + 1)) != fingerprint(tree)
        assert {tensor.device.type for tensor in tensors(moved(tree, torch.device("meta")))} == {"meta"}


def test_an_object_with_a_method_to_moves_itself() -> None:
    class Graph:
        def to(self, device: torch.device) -> str:
            return f"on {device}"

    assert moved({"graph": Graph()}, torch.device("cpu")) == {"graph": "on cpu"}
    assert fingerprint([Graph()]) == fingerprint([Graph()])


def test_what_cannot_be_a_batch_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="frozen dataclass"):
        moved([Frozen(torch.ones(2))], torch.device("cpu"))
    with pytest.raises(ValueError, match="tensors of 3, 2 samples"):
        Memory((torch.ones(3), {"y": torch.ones(2)}))
    with pytest.raises(ValueError, match="no tensor"):
        Memory(())
    with pytest.raises(ValueError, match="tensors of 0, 2 samples"):
        Memory((torch.tensor(1.0), torch.ones(2)))
    with pytest.raises(ValueError, match="Memory holds tensors, and this is str"):
        Memory({"x": torch.ones(2), "name": ["a", "b"]})
    with pytest.raises(ValueError, match=r"Memory\(\(inputs, targets\)\)"):
        Memory(torch.ones(2), torch.ones(2))  # type: ignore[arg-type]
    with pytest.raises(step.ConfigError, match="tensors of 2, 3 rows.* weight=COUNT"):
        step.samples([torch.ones(3), torch.ones(2)])
    with pytest.raises(step.ConfigError, match="no tensor with rows"):
        step.samples({"scale": torch.tensor(1.0)})


def test_any_nest_in_memory_gives_the_rows_of_each_tensor() -> None:
    rows = torch.arange(20)
    tree = {"x": (rows, Pair(rows.view(20, 1) * 2, name=None)), "none": None, "y": BatchEncoding({"z": rows + 5})}
    memory = Memory(tree, lambda batch: batch | {"seen": True})
    picked = torch.tensor([4, 0, 19])
    (batch,) = memory.to(torch.device("cpu")).batches([Pick(0, picked)])
    assert torch.equal(batch["x"][0], picked)
    assert torch.equal(batch["x"][1].inputs[:, 0], 2 * picked)
    assert torch.equal(batch["y"]["z"], picked + 5)
    assert batch["none"] is None
    assert batch["seen"]
    assert (len(memory), memory.home.type) == (20, "cpu")
    assert memory.has_target(99), "only pairs can be searched for a target"
    pair = Memory((rows, rows))
    assert (pair.has_target(19), pair.has_target(20)) == (True, False)


@pytest.mark.parametrize("world", [1, 3])
def test_a_nest_is_evaluated_in_the_same_parts_as_a_pair(world: int) -> None:
    rows = torch.arange(17)
    for rank in range(world):
        layout = Layout(4, world=world, rank=rank)
        nests, pairs = (Shard(Memory(stored), layout) for stored in ({"a": {"b": rows}}, (rows, rows)))
        assert [batch["a"]["b"].tolist() for batch in nests] == [batch[0].tolist() for batch in pairs]
    order = Order(17, 0, Layout(4))
    assert [batch.tolist() for batch in Memory(rows).batches(order.picks(0, 6))] == [
        pick.indices.tolist() for pick in order.picks(0, 6)
    ]
