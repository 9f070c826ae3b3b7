"""CIFAR-10 (Krizhevsky 2009), from the hub or from a folder of Parquet files in the hub's schema."""

import re
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.augment import Augment
from data.bounds import integer
from data.checks import class_labels, rgb
from data.module import DataModule, Splits
from data.order import permutation
from data.source import Memory, Source, Workers

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image

_MEAN, _STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the training images in [0, 1]
_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
_FILES = {"train": "train.parquet", "test": "test.parquet"}


class CIFAR10(DataModule):
    """32×32 photographs of 10 classes as (N, 3, 32, 32) floats of zero mean and unit variance per channel.

    `path` is a hub name or a folder with train.parquet and test.parquet (columns `img`, `label`). `val_samples` are
    held out of the training set, drawn by `split_seed`; with 0 the test set also validates. `train_limit` is the most
    training samples to keep of the rest. Images are decoded once into memory, or, with `in_memory` false, by
    `num_workers` processes at each use. FileNotFoundError where `path` cannot be read; ValueError, with the row, for a
    label that is no class and an image that is not 32×32.
    """

    def __init__(
        self,
        *,
        path: str,
        val_samples: int = 5000,
        train_limit: int | None = None,
        in_memory: bool = True,
        num_workers: int = 4,
        augment: Augment | None = None,
        **base: Any,
    ) -> None:
        super().__init__(val_samples=val_samples, **base)
        self.held_out = integer("data.val_samples", val_samples, low=0)
        self.path, self.in_memory, self.augment = path, in_memory, augment
        self.train_limit = None if train_limit is None else integer("data.train_limit", train_limit)
        self.num_workers = integer("data.num_workers", num_workers, low=0)

    @property
    def shape(self) -> dict[str, int]:
        return {"in_features": 3072, "in_channels": 3, "classes": 10}

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of their labels."""
        return _NAMES.split()

    def prepare_data(self) -> None:
        """Download and decode once per machine; other processes use the cache of `datasets`."""
        for rows in load(self.path).values():
            if self.in_memory:
                _cached_pixels(rows)

    def read(self) -> Splits:
        rows = load(self.path)
        labels = {split: _labels(rows[split]) for split in rows}
        train, val = self._hold_out(len(rows["train"]))
        if self.in_memory:
            images = _decoded(rows["train"])
            test: Source = Memory((_decoded(rows["test"]), labels["test"]), normalise)
            parts: list[Source] = [Memory((images[part], labels["train"][part]), normalise) for part in (train, val)]
        else:
            test = Workers(_Photographs(rows["test"]), self.num_workers, prepare=normalise)
            chosen = [_Photographs(rows["train"].select(part.tolist())) for part in (train, val)]
            parts = [Workers(photographs, self.num_workers, prepare=normalise) for photographs in chosen]
        return Splits(parts[0], parts[1] if self.held_out else test, test)

    def _hold_out(self, available: int) -> tuple[Tensor, Tensor]:
        left = available - self.held_out
        if left < (self.train_limit or 1):
            raise ValueError(
                f"data.val_samples={self.held_out} leaves {left} of {available} training samples, but "
                f"{self.train_limit or 1} are wanted: lower data.val_samples or data.train_limit."
            )
        shuffled = permutation(available, self.split_seed, epoch=0)
        return shuffled[: self.train_limit or left], shuffled[left:]


class _Photographs(Dataset):
    """(image (3, 32, 32) uint8, label), decoded at each access."""

    def __init__(self, rows: "datasets.Dataset") -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> Tensor:
        """The labels of all images."""
        return _labels(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        row = self.rows[index]
        return torch.from_numpy(_pixels(row["img"], self.rows.split, index)).permute(2, 0, 1), row["label"]


def load(path: str) -> "dict[str, datasets.Dataset]":
    """The `train` and `test` rows. FileNotFoundError without them, ValueError without their columns."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    files = _files(path)
    try:
        rows = datasets.load_dataset("parquet", data_files=files) if files else datasets.load_dataset(path)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileNotFoundError(f"data.path={path} cannot be read as CIFAR-10: {reason}") from error
    for split in ("train", "test"):
        if split not in rows or not {"img", "label"} <= set(rows[split].column_names):
            raise ValueError(
                f"data.path={path} has no split {split} with the columns img and label: give another path."
            )
    return {split: rows[split] for split in ("train", "test")}


def _files(path: str) -> dict[str, str] | None:
    """The Parquet files of a folder by split; None where `path` is the name of a hub data set."""
    folder = Path(path).expanduser()
    if not folder.is_dir() and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", path):
        return None
    files = {split: folder / name for split, name in _FILES.items()}
    missing = [str(file) for file in files.values() if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"data.path={path} lacks {' and '.join(missing)}: give a folder with them, or a hub name "
            f"such as uoft-cs/cifar10."
        )
    return {split: str(file) for split, file in files.items()}


def normalise(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The batch with (bytes / 255 - mean) / std for each channel of its images; (N, 3, H, W) uint8 to float32."""
    images, labels = batch
    scale, shift = _affine(images.device)
    return images.float().mul_(scale).add_(shift), labels


@cache
def _affine(device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return 1 / (255 * std), -mean / std


def _labels(rows: "datasets.Dataset") -> Tensor:
    """All labels, (N,) int64."""
    return class_labels(rows.with_format("arrow")[:]["label"], 10, f"data.path: column label of {rows.split}")


def _decoded(rows: "datasets.Dataset") -> Tensor:
    """All images, (N, 3, 32, 32) uint8."""
    pixels = _cached_pixels(rows).with_format("arrow")[:]["pixels"].to_pylist()
    images = np.frombuffer(b"".join(pixels), dtype=np.uint8).reshape(-1, 32, 32, 3)
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def _cached_pixels(rows: "datasets.Dataset") -> "datasets.Dataset":
    """The bytes of every image in `pixels`; `datasets` keeps them on disk for the next run."""
    options = {"with_indices": True, "remove_columns": ["img"], "fn_kwargs": {"split": str(rows.split)}}
    return rows.select_columns(["img"]).map(_decode, batched=True, desc="Decoding", **options)


def _decode(rows: dict[str, "list[Image]"], indices: list[int], split: str) -> dict[str, list[bytes]]:
    return {"pixels": [_pixels(image, split, row).tobytes() for image, row in zip(rows["img"], indices)]}


def _pixels(image: "Image | None", split: str, row: int) -> np.ndarray:
    where = f"data.path: the image in row {row} of {split}"
    if image is not None and image.size != (32, 32):
        raise ValueError(f"{where} has {image.width}×{image.height} pixels: give 32×32.")
    return rgb(image, where)
