"""k folds: every sample validates once, classes are shared out evenly, the plan knows the samples of each fold."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.model_selection import StratifiedKFold
from torch.utils.data import Dataset, TensorDataset

from data.dataset import Datasets
from data.digits import Digits
from data.folds import Fold, checked_fold, fold_numbers, in_folds, training_size
from data.module import DataModule, Splits
from data.per_sample import known_labels
from data.source import Memory, Workers
from data.synthetic import Synthetic
from data.text import Windows
from trainer.checkpoint.io import checkpoints_in
from trainer.config.resolve import plan_of
from trainer.config.settings import declared_samples, settings_of
from trainer.lr import ConfigError
from trainer.run import fit

LABELS = torch.tensor([0] * 61 + [1] * 33 + [2] * 7)


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_every_sample_is_in_one_fold_and_each_class_is_shared_out_evenly(folds: int) -> None:
    for labels in (None, LABELS):
        numbers = fold_numbers(101, folds, seed=3, labels=labels)
        sizes = numbers.bincount(minlength=folds)
        assert sizes.tolist() == [101 // folds + (fold < 101 % folds) for fold in range(folds)]
        assert [101 - size for size in sizes.tolist()] == [training_size(101, Fold(folds, f)) for f in range(folds)]
    of_classes = torch.stack([numbers[label == LABELS].bincount(minlength=folds) for label in range(3)])
    assert (of_classes.max(1).values - of_classes.min(1).values <= 1).all()
    theirs = [LABELS[test] for _, test in StratifiedKFold(folds).split(LABELS, LABELS)]
    assert (of_classes.T - torch.stack([found.bincount(minlength=3) for found in theirs])).abs().max() <= 1


def test_folds_are_drawn_by_the_split_seed_alone() -> None:
    first = fold_numbers(101, 5, seed=3)
    torch.manual_seed(9)
    assert torch.equal(fold_numbers(101, 5, seed=3), first)
    assert not torch.equal(fold_numbers(101, 5, seed=4), first)
    same = (fold_numbers(10_000, 5, 0) == fold_numbers(10_000, 5, 1)).double().mean()
    assert abs(same - 0.2) < 0.02


def rows_of(source: Any) -> list[tuple]:
    return sorted(map(tuple, source.stored[0].flatten(1).tolist()))


def test_digits_in_folds_keep_their_test_set_and_standardise_by_the_training_part() -> None:
    plain = Digits(batch_size=8, samples=1257, val_samples=180)
    plain.setup()
    pool = rows_of(plain.splits.train) + rows_of(plain.splits.val)
    validated = []
    for fold in range(5):
        module = Digits(batch_size=8, samples=1257, val_samples=180, folds=5, fold=fold, seed=fold)
        module.setup()
        train, val, test = module.splits
        assert module.train_samples == len(train) == 1437 - 287 - (fold < 2)
        assert sorted(rows_of(train) + rows_of(val)) == sorted(pool)
        assert torch.equal(test.stored[0], plain.splits.test.stored[0])
        share = val.targets.bincount(minlength=10) - torch.cat([train.targets, val.targets]).bincount() / 5
        assert share.abs().max() < 1
        validated += rows_of(val)
    assert sorted(validated) == sorted(pool)
    scaled = Digits(batch_size=8, folds=5, fold=2, standardize=True, label_noise=0.1)
    scaled.setup()
    assert scaled.splits.train.inputs.double().mean(0).abs().max() < 1e-6
    clean = Digits(batch_size=8, folds=5, fold=2)
    clean.setup()
    assert torch.equal(scaled.splits.val.targets, clean.splits.val.targets)
    assert (scaled.splits.train.targets != clean.splits.train.targets).sum() == round(0.1 * 1150)


class Kept(Dataset):
    """Numbers with labels that it keeps in an attribute."""

    def __init__(self, start: int, count: int) -> None:
        self.start, self.targets = start, [(start + i) % 3 for i in range(count)]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[int, int]:
        return self.start + index, self.targets[index]


def test_a_data_set_that_workers_read_is_dealt_out_without_being_read() -> None:
    seen: list[int] = []
    for fold in range(4):
        train, val = in_folds(Workers(Kept(0, 30)), Workers(Kept(30, 11)), Fold(4, fold), seed=0)
        assert len(train) == training_size(41, Fold(4, fold))
        found = [val.dataset[i] for i in range(len(val))]  # type: ignore[attr-defined]
        counts = torch.tensor([label for _, label in found]).bincount(minlength=3)
        assert counts.max() - counts.min() <= 2
        assert counts.min() >= 3
        seen += [number for number, _ in found]
    assert sorted(seen) == list(range(41))


def test_nests_are_joined_leaf_by_leaf_and_no_validation_set_is_needed() -> None:
    tree = {"ids": torch.arange(10)[:, None], "labels": torch.arange(10) % 2}
    more = {"ids": torch.arange(10, 13)[:, None], "labels": torch.arange(3) % 2}
    train, val = in_folds(Memory(tree), Memory(more), Fold(3, 1), seed=0)
    assert sorted([*train.stored["ids"][:, 0].tolist(), *val.stored["ids"][:, 0].tolist()]) == list(range(13))
    train, val = in_folds(Memory(tree), None, Fold(5, 1), seed=0)
    assert (len(train), val.stored["labels"].tolist()) == (8, [0, 1])


def test_nests_are_joined_by_name_whatever_the_order_of_their_names() -> None:
    one = {"a": torch.zeros(6), "b": (torch.ones(6), None)}
    other = {"b": (torch.ones(3), None), "a": torch.zeros(3)}
    train, val = in_folds(Memory(one), Memory(other), Fold(3, 1), seed=0)
    for part in (train, val):
        assert not part.stored["a"].any()
        assert part.stored["b"][0].all()
    with pytest.raises(
        ValueError, match="data.folds joins .*, and one has the keys a, b where the other has the keys a"
    ):
        in_folds(Memory(one), Memory({"a": torch.zeros(3), "c": torch.zeros(3)}), Fold(3, 1), seed=0)


def test_where_the_test_set_validates_only_training_samples_are_dealt_out() -> None:
    class Shared(DataModule):
        def read(self) -> Splits:
            test = Memory((torch.arange(100, 105), torch.zeros(5)))
            return Splits(Memory((torch.arange(10), torch.zeros(10))), test, test)

    module = Shared(batch_size=2, samples=10, val_samples=0, folds=5, fold=0)
    module.setup()
    assert [len(part) for part in module.splits] == [8, 2, 5]
    assert module.splits.val.inputs.max() < 10


def test_test_samples_that_also_validate_are_not_dealt_out() -> None:
    rows = TensorDataset(torch.randn(9, 2), torch.arange(9))
    for again in (rows, TensorDataset(*rows.tensors)):
        module = Datasets(train=TensorDataset(*rows.tensors), val=rows, test=again, batch_size=2, folds=3, fold=0)
        with pytest.raises(ValueError, match="data.folds=3: data.val and data.test hold the same samples"):
            module.setup()
    other = TensorDataset(torch.randn(9, 2), torch.arange(9))
    Datasets(train=rows, val=rows, test=other, batch_size=2, folds=3, fold=0).setup()


def test_what_is_no_class_does_not_deal_the_samples_out() -> None:
    rows = torch.randn(20, 2), torch.arange(20) % 2, torch.arange(20)
    assert known_labels(Workers(TensorDataset(*rows))) is None
    assert known_labels(Workers(TensorDataset(rows[0], rows[0], rows[1]))).tolist() == rows[1].tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("folds", "fold", "told"),
    [
        (None, 0, "data.fold=0 is one of a number of folds: set data.folds"),
        (5, None, "data.folds=5: set data.fold from 0 to 4"),
        (1, 0, "data.folds=1"),
        (5, 5, "data.fold=5 must be below data.folds=5"),
        (5, -1, "data.fold=-1"),
        (5, True, "data.fold=True"),
    ],
)
def test_folds_that_make_no_sense_are_refused(folds: Any, fold: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        checked_fold(folds, fold)


def test_what_cannot_be_dealt_out_is_refused() -> None:
    windows = Windows(torch.arange(100), 4)
    with pytest.raises(ValueError, match="data.folds needs samples .* Windows"):
        in_folds(windows, None, Fold(2, 0), 0)
    with pytest.raises(ValueError, match="Memory with Workers"):
        in_folds(Memory(torch.arange(4)), Workers(TensorDataset(torch.arange(4))), Fold(2, 0), 0)
    with pytest.raises(ValueError, match="data.folds=5 is more than the 4 samples"):
        in_folds(Memory(torch.arange(4)), None, Fold(5, 0), 0)
    with pytest.raises(ValueError, match=r"data.val_samples=10, but the data holds 180"):
        Digits(batch_size=8, val_samples=10).setup()


@pytest.mark.parametrize("fold", range(3))
@pytest.mark.parametrize("data", ["digits", "synthetic"])
def test_the_plan_counts_the_samples_of_a_fold_without_reading_data(compose, monkeypatch, data: str, fold: int) -> None:
    settings = settings_of(compose(f"data={data}", "data.folds=3", f"data.fold={fold}", "trainer.duration=2ep"))
    declared = declared_samples(settings.data, settings.allow)
    for kind in (Digits, Synthetic):
        monkeypatch.setattr(kind, "read", lambda self: pytest.fail("data was read"))
    assert plan_of(settings).horizon.total == 2 * (declared // settings.data["batch_size"])
    monkeypatch.undo()
    from trainer.config.model_data import read_data

    assert read_data(settings).train_samples == declared


def test_a_fold_trains_and_validates_on_its_part(assembled) -> None:
    parts = assembled("data.folds=5", "data.fold=4", "trainer.duration=1ep", "logger=none")
    assert (len(parts.data.splits.train), len(parts.data.splits.val)) == (1150, 287)
    assert parts.resolved.horizon.total == 1150 // 32
    assert parts.data.order_note.endswith("by data.seed=0; fold 4 of 5, with even shares of each class")
    with pytest.raises(ConfigError, match=r"data.fold=None .* give one from 0 to 4"):
        assembled("data.folds=5")


def test_a_run_does_not_go_on_with_another_fold(assembled) -> None:
    words = ("data.folds=3", "data.fold=0", "trainer.duration=4", "trainer.validate=2", "logger=none", "warmup=none")
    first = assembled(*words, folder="first")
    fit(first)
    *_, point = checkpoints_in(first.folder / "checkpoints")
    with pytest.raises(ConfigError, match=r"was trained with data.fold=0: .* samples that it has trained on"):
        assembled(*words, "data.fold=1", folder="second", resumed=point)
    assembled(*words, "trainer.duration=8", "resume.policy=stretch", folder="third", resumed=point)


def test_a_class_that_takes_base_settings_shows_them_and_refuses_others(compose) -> None:
    from trainer.config.model_data import read_data

    with pytest.raises(ConfigError, match="did you mean samples"):
        read_data(SimpleNamespace(data={**settings_of(compose()).data, "smaples": 3}, allow=[], seed=0))
