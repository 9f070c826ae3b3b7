"""Real images must reach the net the same way from memory and from workers, and a wrong folder must be named."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from data.augment import Augment
from data.cifar10 import CIFAR10, normalise
from data.stream import Loop


def cifar(**changes: object) -> CIFAR10:
    if not (root := os.environ.get("CADENCE_DATA")):
        pytest.skip("CADENCE_DATA does not name a folder with cifar10/train.parquet")
    settings = {"path": str(Path(root) / "cifar10"), "batch_size": 16, "train_limit": 128}
    module = CIFAR10(**{**settings, "augment": Augment(crop=4, flip=True, cutout=8), "num_workers": 2, **changes})
    module.setup()
    module.follow(lambda: 3, Loop(total=20, validation_interval=10, pauses=(), steps_per_execution=4, accumulate=2))
    return module


def batches(module: CIFAR10) -> list:
    return [micro for chunk in module.train_dataloader() for update in chunk for micro in update]


@pytest.mark.data
def test_memory_and_workers_give_the_same_bits() -> None:
    memory, workers = cifar(), cifar(in_memory=False)
    for ours, theirs in zip(batches(memory), batches(workers), strict=True):
        assert all(map(torch.equal, ours.batch, theirs.batch))
        assert ours.seed == theirs.seed
    ours, theirs = (next(iter(module.val_dataloader())) for module in (memory, workers))
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.data
def test_the_images_are_the_files_and_are_kept_as_bytes() -> None:
    import io

    import pyarrow.parquet as parquet
    from PIL import Image

    test = cifar().splits.test
    rows = parquet.read_table(Path(os.environ["CADENCE_DATA"]) / "cifar10/test.parquet").slice(0, 50).to_pylist()
    assert test.inputs.dtype == torch.uint8
    for stored, label, row in zip(test.inputs, test.targets, rows):
        pixels = np.asarray(Image.open(io.BytesIO(row["img"]["bytes"])).convert("RGB"))
        assert np.array_equal(stored.permute(1, 2, 0).numpy(), pixels)
        assert label == row["label"]


@pytest.mark.data
def test_held_out_images_do_not_change_with_the_limit_and_are_not_trained_on() -> None:
    few, all_of_them = cifar(), cifar(train_limit=None)
    assert [len(split) for split in all_of_them.splits] == [45_000, 5_000, 10_000]
    assert torch.equal(few.splits.val.inputs, all_of_them.splits.val.inputs)
    assert torch.equal(few.splits.train.inputs, all_of_them.splits.train.inputs[:128])
    assert all_of_them.shape == {"in_features": 3072, "in_channels": 3, "classes": 10}
    labels = torch.cat([split.targets for split in all_of_them.splits[:2]])
    assert labels.bincount().tolist() == [5000] * 10


@pytest.mark.data
def test_without_held_out_images_the_test_set_validates() -> None:
    module = cifar(val_samples=0, train_limit=None)
    assert module.train_samples == 50_000
    assert module.splits.val is module.splits.test


@pytest.mark.data
def test_more_images_than_there_are_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"data.val_samples=5000 leaves 45000 .* 45001") as error:
        cifar(train_limit=45_001)
    assert "\n" not in str(error.value)


def test_normalising_gives_each_channel_zero_mean_and_unit_variance() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    black, white = normalise(images).double().view(2, 3)
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    assert torch.allclose(black, (-mean / std).double(), rtol=1e-6)
    assert torch.allclose(white, ((1 - mean) / std).double(), rtol=1e-6)


def test_a_folder_without_the_files_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    for path in (str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(FileNotFoundError, match=r"data.path=.*train.parquet") as error:
            CIFAR10(path=path, batch_size=8).setup()
        assert "\n" not in str(error.value)


def test_a_table_without_the_columns_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split in ("train", "test"):
        datasets.Dataset.from_dict({"image": [1], "label": [0]}).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(ValueError, match="img and label") as error:
        CIFAR10(path=str(tmp_path), batch_size=8).setup()
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_parquet_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").write_text("no table")
    with pytest.raises(FileNotFoundError, match="data.path=") as error:
        CIFAR10(path=str(tmp_path), batch_size=8).setup()
    assert "\n" not in str(error.value)
