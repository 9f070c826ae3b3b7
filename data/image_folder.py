"""Photographs in folders, one folder for each class, as torchvision and timm have them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.bounds import integer, share
from data.checks import rgb
from data.module import DataModule, Splits
from data.order import permutation
from data.per_sample import labels_in
from data.source import Workers
from data.transforms import CentreCrop, RandomResizedCrop

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which pretrained nets expect
Transform = Callable[["Image"], Tensor]


class ImageFolder(DataModule):
    """Images as (N, 3, image_size, image_size) floats, and their classes in the order of the folders' names.

    `path` has one folder for each class; or the folder `train` has them, and `val` and `test` beside it, if they are
    there. Where they are not, `val_fraction` and `test_fraction` of each class are held out, drawn by `split_seed`.

    `transform` makes a tensor of a training image, in workers, with random choices of the generators of torch, numpy
    and Python, which are seeded for each sample; `eval_transform` makes one of the others. Bytes are scaled to zero
    mean and unit variance of ImageNet on the device; floats are taken as they are. FileNotFoundError without images.
    """

    def __init__(
        self,
        *,
        path: str,
        image_size: int = 224,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        transform: Transform | None = None,
        eval_transform: Transform | None = None,
        num_workers: int = 4,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.path, self.image_size = path, integer("data.image_size", image_size)
        self.fractions = [share("data.val_fraction", val_fraction), share("data.test_fraction", test_fraction)]
        self.transform = transform or RandomResizedCrop(image_size)
        self.eval_transform = eval_transform or CentreCrop(image_size)
        self.num_workers = integer("data.num_workers", num_workers, low=0)
        self.classes: list[str] = []

    @property
    def shape(self) -> dict[str, int]:
        self.setup()
        size = 3 * self.image_size**2
        return {"in_features": size, "in_channels": 3, "image_size": self.image_size, "classes": len(self.classes)}

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of their labels."""
        return self.classes

    def read(self) -> Splits:
        root = Path(self.path).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"data.path={self.path} is not a folder: give one with a folder for each class.")
        split = (root / "train").is_dir()
        self.classes = _folders(root / "train" if split else root)
        train = self._files(root / "train" if split else root)
        parts = {name: self._files(root / name) for name in ("val", "test") if split and (root / name).is_dir()}
        train, held_out = self._hold_out(train, {"val", "test"} - parts.keys())
        parts |= held_out
        found = (train, parts.get("val"), parts.get("test"))
        return Splits(*(Workers(part) if part is not None and len(part) else None for part in found))  # type: ignore[arg-type]

    def after_split(self, splits: Splits) -> Splits:
        transforms = (self.transform, self.eval_transform, self.eval_transform)
        return Splits(*(self._source(part, one) if part else None for part, one in zip(splits, transforms)))  # type: ignore[arg-type]

    def _source(self, raw: Any, transform: Transform) -> Workers:
        images = Transformed(raw.dataset, transform)
        return Workers(images, min(self.num_workers, len(images)), prepare=normalise)

    def _files(self, folder: Path) -> "Images":
        found = _folders(folder)
        if found != self.classes:
            odd = sorted(set(found) ^ set(self.classes))
            raise ValueError(f"data.path={self.path}: {odd[0]} is not a class of both train and {folder.name}.")
        labelled = []
        for label, name in enumerate(self.classes):
            files = sorted(file for file in (folder / name).rglob("*") if file.suffix.lower() in SUFFIXES)
            if not files:
                raise FileNotFoundError(
                    f"data.path={self.path}: {folder / name} holds no image: add some or remove it."
                )
            labelled += [(file, label) for file in files]
        return Images(labelled)

    def _hold_out(self, images: "Images", names: set[str]) -> tuple["Images", dict[str, "Images"]]:
        """Shares of each class for those splits, and what is left to train on."""
        shares = dict(zip(("val", "test"), self.fractions))
        taken: dict[str, list[int]] = {name: [] for name in ("train", *sorted(names))}
        targets = torch.tensor(images.targets)
        for label in range(len(self.classes)):
            mine = (targets == label).nonzero()[:, 0]
            mine = mine[permutation(len(mine), self.split_seed, label)]
            sizes = [int(len(mine) * shares[name]) for name in sorted(names)]
            if sum(sizes) >= len(mine):
                raise ValueError(
                    f"data.val_fraction={self.fractions[0]} and data.test_fraction={self.fractions[1]} leave none of "
                    f"the {len(mine)} images of {self.classes[label]} to train on: lower them."
                )
            for name, part in zip(taken, mine.split([len(mine) - sum(sizes), *sizes])):
                taken[name] += part.tolist()
        parts = {name: images.only(sorted(indices)) for name, indices in taken.items()}
        return parts.pop("train"), parts


class Images(Dataset):
    """(image, label) from files; the image is RGB."""

    def __init__(self, files: list[tuple[Path, int]]) -> None:
        self.files, self.targets = [file for file, _ in files], [label for _, label in files]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple["Image", int]:
        from PIL import Image, UnidentifiedImageError

        file = self.files[index]
        try:
            with Image.open(file) as image:
                return Image.fromarray(rgb(image, f"data.path: {file}")), self.targets[index]
        except (UnidentifiedImageError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"data.path: {file} cannot be read as an image: {reason}") from error

    def only(self, indices: list[int]) -> "Images":
        """The files of those places."""
        return Images([(self.files[i], self.targets[i]) for i in indices])


class Transformed(Dataset):
    """(transform(image), label) of the images of a data set."""

    def __init__(self, images: Any, transform: Transform) -> None:
        self.images, self.transform = images, transform
        self.targets = labels_in(images)  # where a sampling looks for them

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.images[index]
        return self.transform(image), label


def normalise(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Bytes / 255 with the mean and deviation of ImageNet; floats as they are."""
    images, labels = batch
    if images.dtype != torch.uint8:
        return images, labels
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (_MEAN, _STD))
    return (images.float() / 255 - mean) / std, labels


def _folders(folder: Path) -> list[str]:
    try:
        names = sorted(one.name for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
    except PermissionError as error:
        raise PermissionError(f"data.path: {folder} may not be read: give yourself the right to.") from error
    if len(names) < 2:
        raise FileNotFoundError(
            f"data.path: {folder} has {len(names)} folders of classes: give one for each, 2 or more."
        )
    return names
