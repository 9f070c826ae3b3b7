"""Labels, numbers and pixels that would train in silence as something else are refused before, with their row."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image

from data.checks import class_labels, finite_numbers, rgb

WHERE = "data.path=x: column label"


@pytest.mark.parametrize("kind", [list, torch.tensor, np.array, pyarrow.array, lambda of: pyarrow.chunked_array([of])])
def test_labels_of_every_kind_of_column_are_the_same_numbers(kind: Any) -> None:
    found = class_labels(kind([0, 9, 3]), 10, WHERE)
    assert found.dtype == torch.int64
    assert found.tolist() == [0, 9, 3]
    assert class_labels(kind([False, True]), 2, WHERE).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0, 1, None], "row 2 has no label: give one, or leave the row out"),
        (pyarrow.array([0, None, 1]), "row 1 has no label"),
        ([0, -100, 1], "row 1 has the label -100: give 0 to 9"),
        (list(range(1, 11)), "row 9 has the label 10: give 0 to 9, since classes are counted from 0"),
        ([0, 12], "row 1 has the label 12: give 0 to 9."),
        ([0, 1.5], r"row 0 has the label 0\.0: give whole"),
        (torch.tensor([1.0]), r"row 0 has the label 1\.0"),
        (["cat"], "row 0 has the label 'cat'"),
        (torch.zeros(2, 3, dtype=torch.int64), r"shape \(2, 3\)"),
        (np.array([0, 2**63], dtype=np.uint64), "row 1 has the label 9223372036854775808"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_their_row(values: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        class_labels(values, 10, WHERE)
    assert str(error.value).startswith(WHERE)
    assert "\n" not in str(error.value)


def test_the_ignored_label_may_occur() -> None:
    assert class_labels([0, -100, 1], 2, WHERE, ignore_index=-100).tolist() == [0, -100, 1]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1.0, float("nan")], "row 1 has nan: give finite"),
        ([float("-inf")], "row 0 has -inf"),
        ([1e39], r"row 0 has 1e\+39"),
        ([1, None], "row 1 has no value: give numbers"),
        (["x"], "row 0 has 'x'"),
    ],
)
def test_numbers_that_are_not_finite_are_refused_with_their_row(values: list, told: str) -> None:
    with pytest.raises(ValueError, match=f"{WHERE}: {told}"):
        finite_numbers(values, WHERE)
    assert finite_numbers([1, 2.5], WHERE).tolist() == [1, 2.5]


@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_levels_of_16_bits_keep_their_order_and_share_of_the_range(order: str) -> None:
    levels = np.linspace(0, 65535, 64 * 64).round().astype(f"{order}u2").reshape(64, 64)
    image = Image.frombytes("I;16" if order == "<" else "I;16B", (64, 64), levels.tobytes())
    found = rgb(image, "image 3")
    assert (found.shape, found.dtype) == ((64, 64, 3), np.uint8)
    assert (found[..., 0] == found[..., 1]).all()
    assert np.abs(found[..., 2] / 255 - levels.astype(float) / 65535).max() <= 0.5 / 255 + 1e-12
    assert (np.array(image.convert("RGB"))[..., 0] == 255).mean() > 0.9 or found[..., 0].max() == 255


def test_a_missing_image_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image 3 is missing"):
        rgb(None, "image 3")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    with pytest.raises(ValueError, match="image 3 cannot be decoded: .*replace the file") as error:
        rgb(Image.open(tmp_path / "half.png"), "image 3")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "1", "CMYK"])
def test_images_of_8_bits_are_what_pillow_makes_of_them(mode: str) -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).convert(mode)
    assert np.array_equal(rgb(image, "image 3"), np.array(image.convert("RGB")))


@pytest.mark.parametrize(("mode", "kind"), [("I", "whole numbers"), ("F", "floats")])
def test_pixels_of_32_bits_are_refused(mode: str, kind: str) -> None:
    with pytest.raises(ValueError, match=f"image 3 has pixels of 32 bits \\({kind}\\)"):
        rgb(Image.new(mode, (2, 2)), "image 3")
