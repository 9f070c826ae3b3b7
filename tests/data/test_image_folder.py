"""Images from folders: split by class, transformed by seeds of their own, and named where they cannot be read."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from data.image_folder import ImageFolder
from data.reader import SampleError
from data.stream import Loop
from data.transforms import CentreCrop, RandomResizedCrop


def photos(folder: Path, counts: dict[str, int], side: int = 20) -> str:
    draw = np.random.default_rng(0)
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = draw.integers(0, 120, (side, side + 6, 3)) + 100 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return str(folder)


def folder(path: str, **settings: Any) -> ImageFolder:
    module = ImageFolder(**{"path": path, "image_size": 8, "batch_size": 8, "num_workers": 0, **settings})
    module.setup()
    module.follow(lambda: 2, Loop(total=8, validation_interval=8))
    return module


def test_folders_are_classes_and_each_is_split_by_the_same_shares(tmp_path: Path) -> None:
    module = folder(photos(tmp_path, {"cat": 40, "ant": 20}), val_fraction=0.25, test_fraction=0.1)
    assert module.classes == ["ant", "cat"]
    assert module.shape == {"in_features": 192, "in_channels": 3, "image_size": 8, "classes": 2}
    counts = [torch.tensor(part.dataset.targets).bincount().tolist() for part in module.splits]  # type: ignore[union-attr]
    assert counts == [[13, 26], [5, 10], [2, 4]]
    files = [set(part.dataset.images.files) for part in module.splits]  # type: ignore[union-attr]
    assert len(set.union(*files)) == 60
    again = folder(str(tmp_path), val_fraction=0.25, test_fraction=0.1, seed=5)
    assert set(again.splits.val.dataset.images.files) == files[1]  # type: ignore[union-attr]


def test_folders_of_splits_are_used_as_they_are(tmp_path: Path) -> None:
    photos(tmp_path / "train", {"a": 10, "b": 10})
    photos(tmp_path / "val", {"a": 2, "b": 3})
    module = folder(str(tmp_path))
    assert [part and len(part) for part in module.splits] == [20, 5, None]
    shutil.rmtree(tmp_path / "val" / "b")
    (tmp_path / "val" / "c").mkdir()
    with pytest.raises(ValueError, match="b is not a class of both train and val"):
        folder(str(tmp_path))


def batches(module: ImageFolder) -> list[tuple[Tensor, Tensor]]:
    return [micro.batch for chunk in module.train_dataloader() for update in chunk for micro in update]


def test_random_transforms_are_the_same_with_and_without_workers_and_differ_between_epochs(tmp_path: Path) -> None:
    path = photos(tmp_path, {"a": 12, "b": 12})
    ours, theirs = batches(folder(path, val_fraction=0)), batches(folder(path, val_fraction=0, num_workers=1))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(ours, theirs, strict=True))
    assert ours[0][0].shape == (8, 3, 8, 8)
    sums = [inputs.sum((1, 2, 3)).sort().values for inputs, _ in ours]
    assert len({tuple(found.tolist()) for found in sums}) == len(sums)


def test_evaluation_takes_the_centre_and_scales_bytes_as_imagenet_does(tmp_path: Path) -> None:
    module = folder(photos(tmp_path, {"a": 8, "b": 8}, side=32), val_fraction=0.25, image_size=28)
    inputs, labels = next(iter(module.val_dataloader()))
    assert labels.tolist() == [0, 0, 1, 1]
    file = module.splits.val.dataset.images.files[0]  # type: ignore[union-attr]
    pixels = np.asarray(Image.open(file))[2:30, 5:33] / 255  # the middle 28 of 32 × 38
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert np.allclose(inputs[0].permute(1, 2, 0), expected, atol=1e-5)


def test_a_random_crop_keeps_its_area_its_ratio_and_its_place_in_the_image() -> None:
    crop = RandomResizedCrop(8, scale=(0.2, 0.6), ratio=(0.5, 2.0))
    torch.manual_seed(0)
    boxes = np.array([crop._box(200, 150) for _ in range(3000)])
    wide, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert (boxes[:, 2].max() <= 200) & (boxes[:, 3].max() <= 150)
    area, ratio = wide * tall / 30_000, np.log(wide / tall)
    assert (area.min() > 0.19) & (area.max() < 0.61)
    assert (ratio.min() > np.log(0.48)) & (ratio.max() < np.log(2.09))
    assert abs(area.mean() - 0.4) < 0.02
    left = boxes[:, 0] / (200 - wide)
    assert abs(left.mean() - 0.5) < 0.02
    flipped = [
        crop(Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (150, 1, 3)))) for _ in range(200)
    ]
    assert 0.35 < np.mean([float(one[0, 0, 0]) > float(one[0, 0, -1]) for one in flipped]) < 0.65
    assert RandomResizedCrop(8, ratio=(9.0, 9.0), scale=(1.0, 1.0))._box(40, 30) == (5, 0, 35, 30)


def test_16_bits_keep_their_levels_and_a_broken_file_is_named(tmp_path: Path) -> None:
    for name, level in (("a", 20_000), ("b", 40_000)):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("I;16", (16, 16), level).save(tmp_path / name / f"{i}.png")
    module = folder(str(tmp_path), val_fraction=0.25)
    inputs, _ = next(iter(module.val_dataloader()))
    assert (inputs[:, 0, 0, 0] * 0.229 + 0.485).tolist() == pytest.approx([20_000 / 65_535, 40_000 / 65_535], abs=0.002)
    (tmp_path / "a" / "5.jpg").write_text("no image")
    broken = folder(str(tmp_path), val_fraction=0, batch_size=9)
    with pytest.raises(SampleError, match=r"5.jpg cannot be read as an image"):
        batches(broken)


def test_a_sampling_and_folds_take_the_labels_of_the_folders(tmp_path: Path) -> None:
    path = photos(tmp_path, {"a": 30, "b": 6})
    module = folder(path, val_fraction=0.25, folds=3, fold=1, sampling="balanced")
    assert torch.as_tensor(module.splits.val.dataset.targets).bincount().tolist() == [10, 2]  # type: ignore[union-attr]
    assert isinstance(module.splits.val.dataset.transform, CentreCrop)  # type: ignore[union-attr]
    labels = torch.cat([labels for _, labels in batches(module)])
    counts = labels.bincount().tolist()
    assert abs(counts[0] - counts[1]) <= 4


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"path": "nowhere"}, "data.path=nowhere is not a folder"),
        ({"path": "{}/one"}, "has 1 folders of classes"),
        ({"path": "{}/bare"}, "b holds no image"),
        ({"path": "{}/good", "val_fraction": 0.5, "test_fraction": 0.5}, "leave none of the 4 images of a to train on"),
        ({"path": "{}/good", "samples": 7}, "data.samples=7, but the data holds 8"),
        ({"path": "{}/good", "image_size": 0}, "data.image_size=0"),
    ],
)
def test_folders_that_hold_no_such_data_are_refused(tmp_path: Path, settings: dict, told: str) -> None:
    photos(tmp_path / "good", {"a": 4, "b": 4})
    photos(tmp_path / "one", {"a": 4})
    photos(tmp_path / "bare", {"a": 4, "b": 0})
    given = {name: value.format(tmp_path) if isinstance(value, str) else value for name, value in settings.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=told) as error:
        folder(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", [{"scale": (0, 1)}, {"scale": (0.5, 0.2)}, {"ratio": (0, 1)}, {"size": 0}])
def test_a_crop_that_cannot_be_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"data.transform.{next(iter(wrong))}="):
        RandomResizedCrop(**{"size": 8, **wrong})
