"""The batched augmentation must do to each image what a slow loop over single images does."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data.augment import Augment

IMAGES = torch.randn(64, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def one_by_one(images: Tensor, seed: int, crop: int, flip: bool, cutout: int, padding: str) -> Tensor:
    """The same random numbers in the same order, applied to one image at a time."""
    generator = torch.Generator().manual_seed(seed)
    count, _, height, width = images.shape
    views = list(images)
    if crop or flip:
        shifts = torch.randint(0, 2 * crop + 1, (2, count, 1), generator=generator).tolist()
        for n in range(count):
            image = F.pad(images[n][None], [crop] * 4, mode="reflect" if padding == "reflect" else "constant")[0]
            top, left = shifts[0][n][0], shifts[1][n][0]
            views[n] = image[:, top : top + height, left : left + width]
        mirrored = torch.rand((count, 1), generator=generator).lt(0.5) if flip else torch.zeros(count, 1)
        views = [view.flip(2) if yes else view for view, yes in zip(views, mirrored)]
    if cutout:
        rows = torch.randint(0, height, (count, 1), generator=generator).tolist()
        columns = torch.randint(0, width, (count, 1), generator=generator).tolist()
        for n in range(count):
            top, left = rows[n][0] - cutout // 2, columns[n][0] - cutout // 2
            views[n] = views[n].clone()
            views[n][:, max(top, 0) : max(top + cutout, 0), max(left, 0) : max(left + cutout, 0)] = 0
    return torch.stack(views)


@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize("crop", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("cutout", [0, 3, 4])
def test_a_batch_is_augmented_as_its_images_one_by_one(padding: str, crop: int, flip: bool, cutout: int) -> None:
    augment = Augment(crop=crop, flip=flip, cutout=cutout, padding=padding)
    for seed in (0, 2**62 + 1):
        assert torch.equal(augment(IMAGES, seed), one_by_one(IMAGES, seed, crop, flip, cutout, padding))


def test_every_shift_and_both_mirrors_occur() -> None:
    column = torch.arange(5.0).expand(4000, 1, 5, 5)
    seen = {tuple(row) for row in Augment(crop=1, flip=True, padding="zero")(column, 3)[:, 0, 2].tolist()}
    forward = {(0, 0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4, 0)}
    assert seen == forward | {row[::-1] for row in forward}


def test_the_same_seed_gives_the_same_view_and_another_seed_another() -> None:
    augment = Augment(crop=2, flip=True, cutout=2)
    assert torch.equal(augment(IMAGES, 1), augment(IMAGES, 1))
    assert not torch.equal(augment(IMAGES, 1), augment(IMAGES, 2))


def test_the_global_random_state_and_the_images_are_left_alone() -> None:
    before, copy = torch.get_rng_state(), IMAGES.clone()
    Augment(crop=2, flip=True, cutout=2)(IMAGES, 1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(copy, IMAGES)


def test_nothing_asked_for_changes_nothing() -> None:
    assert torch.equal(Augment()(IMAGES, 1), IMAGES)


@pytest.mark.parametrize("wrong", [{"crop": -1}, {"cutout": 1.5}, {"padding": "edge"}])
def test_a_wrong_setting_is_refused_in_one_line(wrong: dict) -> None:
    with pytest.raises(ValueError) as error:
        Augment(**wrong)
    assert "\n" not in str(error.value)


def test_a_crop_wider_than_a_reflection_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"crop=7 .* 7") as error:
        Augment(crop=7)(IMAGES, 0)
    assert "\n" not in str(error.value)


@pytest.mark.gpu
def test_the_same_seed_gives_the_same_view_on_a_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    augment, images = Augment(crop=2, flip=True, cutout=2), IMAGES.cuda()
    assert torch.equal(augment(images, 1), augment(images, 1))
