"""A sampling in the config trains: it finds labels, lengths and weights in the data, and stays exact."""

from functools import partial
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from data.per_sample import known_labels, per_sample
from data.sampling import balanced, bucketed, fitted, weighted, with_batch
from data.source import Memory, Workers
from data.text import Windows
from trainer.lr import ConfigError

LABELS = [0, 0, 0, 1, 0, 2]


class Silent(Dataset):
    """Samples whose labels only reading tells; reading draws random numbers, as augmentation does."""

    def __init__(self, named: bool) -> None:
        self.named = named

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> Any:
        ids = torch.randint(5, (index + 1 + int(torch.randint(2, (1,))),))
        return {"input_ids": ids, "labels": LABELS[index]} if self.named else (ids, torch.tensor(LABELS[index]))


class WithTargets(Silent):
    targets = LABELS

    def __getitem__(self, index: int) -> Any:
        pytest.fail("a sample was read")


class WithNames(Silent):
    targets = ["common", "rare"]


SOURCES = {
    "pair": Memory((torch.zeros(6, 2), torch.tensor(LABELS))),
    "names": Memory({"x": torch.zeros(6, 2), "labels": torch.tensor(LABELS)}),
    "targets": Workers(WithTargets(True)),
    "subset": Workers(Subset(ConcatDataset([WithTargets(True)] * 2), list(range(6, 12)))),
    "tensors": Workers(TensorDataset(torch.zeros(6, 2), torch.tensor(LABELS))),
    "column": Workers(datasets.Dataset.from_dict({"text": list("abcdef"), "label": LABELS}).with_format("torch")),
    "read names": Workers(Silent(True)),
    "read pairs": Workers(Silent(False)),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_labels_are_found_where_the_data_keeps_them_and_generators_are_left_alone(source: Any) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert per_sample(source, "labels").tolist() == LABELS
    assert torch.equal(torch.get_rng_state(), before)


def test_names_of_classes_are_no_labels() -> None:
    source = Workers(WithNames(True))
    assert known_labels(source) is None
    assert per_sample(source, "labels").tolist() == LABELS
    named = Workers(datasets.Dataset.from_dict({"label": list("abcdef")}))
    assert known_labels(named) is None
    with pytest.raises(ValueError, match="data.sampling: labels such as 'a' are no numbers: give one for each sample"):
        per_sample(named, "labels")


@pytest.mark.parametrize("named", [True, False])
def test_lengths_are_those_of_the_samples_and_the_same_whenever_they_are_read(named: bool) -> None:
    lengths = per_sample(Workers(Silent(named)), "lengths")
    torch.manual_seed(123)
    assert torch.equal(per_sample(Workers(Silent(named)), "lengths"), lengths)
    assert all(index + 1 <= length <= index + 2 for index, length in enumerate(lengths.tolist()))
    masks = torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert per_sample(Memory({"input_ids": masks, "attention_mask": masks}), "lengths").tolist() == [2, 1]


def test_a_function_of_a_sample_gives_what_the_data_does_not() -> None:
    chosen = partial(bucketed, lengths=lambda sample: 7 - len(sample["x"]) + int(sample["labels"]))
    function = with_batch(fitted(chosen, SOURCES["names"]), 2)
    assert function.keywords["lengths"].tolist() == [5 + label for label in LABELS]
    assert sorted(function(6, 0, 0).tolist()) == list(range(6))
    own = fitted(lambda samples, seed, epoch, *, labels: labels * 0 + epoch, SOURCES["pair"])
    assert own(6, 0, 4).tolist() == [4] * 6
    given = fitted(partial(weighted, weights=[0, 0, 1, 0, 0, 0]), SOURCES["pair"])
    assert given(6, 0, 0).tolist() == [2] * 6
    assert fitted(partial(balanced, weights=[0, 1, 0]), SOURCES["targets"])(6, 0, 0).tolist() == [3] * 6


@pytest.mark.parametrize(
    ("sampling", "source", "told"),
    [
        ("balancd", SOURCES["pair"], "data.sampling='balancd' is unknown: use permutation, balanced"),
        ("weighted", SOURCES["pair"], "data.sampling needs weights, which this data does not tell"),
        ("weighted", Workers(Silent(True)), "data.sampling.weights, or let the data set have an attribute weights"),
        ("balanced", Memory((torch.zeros(6), torch.zeros(6))), r"labels are torch.float32 of shape \(6,\)"),
        ("balanced", Memory((torch.zeros(2), torch.zeros(2, 3, dtype=torch.long))), r"shape \(2, 3\), for 2 samples"),
        ("balanced", Memory({"x": torch.zeros(2)}), "data.sampling needs labels"),
        ("balanced", Windows(torch.arange(20), 4), "needs labels, which Windows does not tell"),
    ],
)
def test_what_a_sampling_cannot_find_is_refused_in_one_line(sampling: str, source: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        fitted(sampling, source)
    assert "\n" not in str(error.value)


EXACT = ("trainer.duration=30", "trainer.precision=64-true", "logger=none", "optimizer=sgd", "trainer.validate=10")


def weights_of(parts: Any) -> Tensor:
    from trainer.run import fit

    fit(parts)
    return torch.cat([parameter.detach().flatten() for parameter in parts.module.net.parameters()])


def test_a_balanced_run_is_the_same_for_every_cut_of_its_batch_and_after_a_resume(assembled, tmp_path) -> None:
    words = (*EXACT, "data.sampling=balanced", "trainer.checkpoint=7", "trainer.keep=0")
    whole = weights_of(assembled(*words, "data.batch_size=32"))
    assert (
        weights_of(assembled(*words, "data.batch_size=8", "trainer.accumulate=4", folder="cut")) - whole
    ).abs().max() < 1e-12
    (saved,) = (tmp_path / "run" / "checkpoints").glob("*14.ckpt")
    again = assembled(*words, "data.batch_size=32", folder="again", resumed=saved)
    assert torch.equal(weights_of(again), whole)
    assert not torch.equal(weights_of(assembled(*EXACT, "data.batch_size=32", folder="plain")), whole)


def test_a_run_draws_from_the_sampling_also_where_it_measures_noise(assembled) -> None:
    node = "data.sampling={_target_:data.sampling.balanced,_partial_:true,weights:[0,0,0,0,0,0,0,1,0,0]}"
    parts = assembled(*EXACT, node)
    drawn = [micro.batch[1] for micro in parts.data.random_batches(seed=0, t=0, size=16, count=3)]
    assert (torch.cat(drawn) == 7).all()
    assert parts.data.order_note.startswith("sampling=balanced from 1257 samples")
    first = next(iter(parts.data.train_dataloader()))[0][0].batch[1]
    assert (first == 7).all()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.sampling=balancd"], "data.sampling='balancd' is unknown"),
        (["data.sampling=weighted"], "data.sampling needs weights"),
        (["data.sampling=3"], "data.sampling=3 does not fit"),
        (["data.sampling={_target_:data.sampling.weighted,_partial_:true,weights:[1,2]}"], r"shape \(2,\) for 1257"),
        (["data.sampling={_target_:data.sampling.weighted,_partial_:true,weights:no.npy}"], "no.npy is not a file"),
        (["data=synthetic_regression", "task=regression", "data.sampling=balanced"], "labels are torch.float32"),
    ],
)
def test_a_sampling_that_cannot_be_is_refused_before_training(assembled, words: list[str], told: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=told):
        assembled(*EXACT, *words)
