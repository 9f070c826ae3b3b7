"""Real images must reach the net the same way from memory and from workers, and a wrong folder must be named."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

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


@pytest.mark.sample(0)
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
    black, white = normalise((images, images))[0].double().view(2, 3)
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


def made_cifar(folder: Path, images: list, labels: list, **settings: object) -> CIFAR10:
    """A data set of a few images, in the hub's schema."""
    import datasets

    rows = datasets.Dataset.from_dict({"img": images, "label": labels}).cast_column("img", datasets.Image())
    for split in ("train", "test"):
        rows.to_parquet(folder / f"{split}.parquet")
    module = CIFAR10(path=str(folder), batch_size=2, val_samples=0, **settings)
    module.setup()
    return module


def grey(level: int, mode: str = "L", side: int = 32) -> Image.Image:
    return Image.new(mode, (side, side), level)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("in_memory", [True, False])
def test_grey_images_of_16_bits_keep_their_levels(tmp_path: Path, in_memory: bool) -> None:
    levels = [0, 1000, 20_000, 40_000, 65_535]
    images = [grey(level, "I;16") for level in levels]
    module = made_cifar(tmp_path, images, [0, 1, 2, 3, 9], in_memory=in_memory, num_workers=0)
    batch = next(iter(module.test_dataloader()))[0]
    found = batch.double()[:, 0, 0, 0] * 0.2470 + 0.4914
    assert torch.allclose(found, torch.tensor(levels).double() / 65535, atol=0.5 / 255 + 1e-6)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, None, 2], "column label of t.*: row 1 has no label"),
        ([0, 1, -100], "row 2 has the label -100: give 0 to 9"),
        ([1, 2, 10], "row 2 has the label 10: give 0 to 9, since classes are counted from 0"),
        ([0.5, 1.5, 2.0], "row 0 has the label 0.5: give whole numbers"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_their_row(
    tmp_path: Path, in_memory: bool, labels: list, told: str
) -> None:
    with pytest.raises(ValueError, match=f"data.path: .*{told}") as error:
        made_cifar(tmp_path, [grey(1)] * 3, labels, in_memory=in_memory)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("image", "told"),
    [
        (None, "row 1 of t.* is missing"),
        (grey(1, "L", 16), "row 1 of t.* has 16×16 pixels: give 32×32"),
        (grey(1, "F"), "row 1 of t.* has pixels of 32 bits"),
    ],
)
def test_images_that_are_none_are_refused_with_their_row(tmp_path: Path, image: object, told: str) -> None:
    with pytest.raises(ValueError, match=f"data.path: the image in {told}"):
        made_cifar(tmp_path, [grey(1), image], [0, 1])


def test_a_file_that_is_not_parquet_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split in ("train", "test"):
        (tmp_path / f"{split}.parquet").write_text("no table")
    with pytest.raises(FileNotFoundError, match="data.path=") as error:
        CIFAR10(path=str(tmp_path), batch_size=8).setup()
    assert "\n" not in str(error.value)
