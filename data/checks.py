"""Checks of labels, numbers and pixels before training. Each refusal names the row."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def class_labels(values: Any, classes: int, where: str, ignore_index: int | None = None) -> Tensor:
    """One class for each row, as (N,) int64: whole numbers from 0 to `classes` - 1, or `ignore_index`.

    `values` is a tensor, an array, a list or an Arrow column; true and false are 1 and 0. ValueError for another value,
    with `where` it was found and its row.
    """
    found = _whole_numbers(values, f"whole numbers from 0 to {classes - 1}", where)
    outside = (found < 0) | (found >= classes)
    if ignore_index is not None:
        outside &= found != ignore_index
    if outside.any():
        row = int(outside.argmax())
        why = ", since classes are counted from 0" if (found.min(), found.max()) == (1, classes) else ""
        raise ValueError(f"{where}: row {row} has the label {found[row]}: give 0 to {classes - 1}{why}.")
    return torch.from_numpy(found.astype(np.int64))


def finite_numbers(values: Any, where: str) -> Tensor:
    """One finite number for each row, as (N,) float32. ValueError for another value, with its row."""
    found = _array(values)
    if found.dtype.kind not in "biuf":
        row = next(i for i, value in enumerate(found) if not _is_number(value))
        raise ValueError(f"{where}: row {row} has {_shown(found[row])}: give numbers.")
    with np.errstate(over="ignore"):
        narrow = found.astype(np.float32)
    if not np.isfinite(narrow).all():
        row = int((~np.isfinite(narrow)).argmax())
        raise ValueError(f"{where}: row {row} has {_shown(found[row])}: give finite numbers.")
    return torch.from_numpy(narrow)


def rgb(image: "Image | None", where: str) -> np.ndarray:
    """The pixels of an image, (H, W, 3) uint8; 16-bit grey is scaled by 255 / 65535 and rounded.

    ValueError for pixels of 32 bits, whose range is not known, and for a file that cannot be decoded.
    """
    if image is None:
        raise ValueError(f"{where} is missing: give one, or drop the row.")
    if image.mode in ("I", "F"):
        kind = "whole numbers" if image.mode == "I" else "floats"
        raise ValueError(f"{where} has pixels of 32 bits ({kind}), of no known range: convert it to 8 or 16 bits.")
    try:
        if image.mode.startswith("I;16"):
            grey = np.rint(np.asarray(image).astype(np.float64) / 257).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{where} cannot be decoded: {' '.join(str(error).split())}: replace the file.") from error


def _whole_numbers(values: Any, wanted: str, where: str) -> np.ndarray:
    found = _array(values)
    if found.ndim != 1:
        raise ValueError(f"{where}: the labels have the shape {tuple(found.shape)}: give one for each row.")
    if found.dtype.kind in "iu":
        return found
    if found.dtype.kind == "b":
        return found.astype(np.int64)
    row = next((i for i, value in enumerate(found) if not _is_whole(value)), 0)
    if found[row] is None:
        raise ValueError(f"{where}: row {row} has no label: give one, or leave the row out.")
    raise ValueError(f"{where}: row {row} has the label {_shown(found[row])}: give {wanted}.")


def _array(values: Any) -> np.ndarray:
    """As an array; of objects where a value is missing, for NumPy would make whole numbers with a gap floats."""
    if isinstance(values, Tensor):
        return values.detach().cpu().numpy()
    if getattr(values, "null_count", 0):  # an Arrow column
        return np.array(values.to_pylist(), dtype=object)
    if isinstance(values, list) and any(value is None for value in values):
        return np.array(values, dtype=object)
    return np.asarray(values)


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float | np.number)


def _is_whole(value: object) -> bool:
    return isinstance(value, bool | int | np.integer)


def _shown(value: object) -> str:
    if value is None:
        return "no value"
    return repr(value.item()) if isinstance(value, np.generic) else repr(value)
