"""Handwritten digits, 8×8 grey, from scikit-learn, for runs of seconds."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.bounds import integer, share
from data.module import DataModule, Splits
from data.order import mix, permutation
from data.source import Memory

DIGITS, CLASSES = 1797, 10


class Digits(DataModule):
    """1,797 digits as (N, 1, 8, 8) floats in [0, 1], split by a fixed permutation into training, validation, test.

    `split` are the three sizes (0: no such data), `split_seed` is the seed of the permutation. `standardize` subtracts
    from each pixel its mean over the training digits, and divides all by the standard deviation of the result.
    `label_noise` is the share of the training labels, drawn by `split_seed`, that are replaced by another class.
    ValueError for sizes that do not fit, or a share outside [0, 1).
    """

    def __init__(
        self,
        *,
        split: Sequence[int] = (1257, 180, 360),
        standardize: bool = False,
        label_noise: float = 0.0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if isinstance(split, str) or len(split) != 3:
            raise ValueError(f"data.split={split} is not three sizes: give training, validation and test.")
        self.split = [integer("data.split", size, low=0) for size in split]
        if not self.split[0] or sum(self.split) > DIGITS:
            raise ValueError(
                f"data.split={self.split} has {self.split[0]} training digits and {sum(self.split)} in all: "
                f"give 1 or more, and {DIGITS} at most."
            )
        if not isinstance(standardize, bool):
            raise ValueError(f"data.standardize={standardize!r} must be true or false.")
        self.standardize = standardize
        self.label_noise = share("data.label_noise", label_noise)

    @property
    def shape(self) -> dict[str, int]:
        return {"in_features": 64, "in_channels": 1, "classes": CLASSES}

    def read(self) -> Splits:
        table = _table()
        images = table[:, :64].float().div(16).view(-1, 1, 8, 8)
        labels = table[:, 64].long()
        order = permutation(DIGITS, self.split_seed, epoch=0)[: sum(self.split)]
        parts = order.split(self.split)
        train, *held_out = (Memory((images[part], labels[part])) if len(part) else None for part in parts)
        assert train is not None
        return Splits(train, *held_out)

    def after_split(self, splits: Splits) -> Splits:
        parts: list[Any] = [None if part is None else part.stored for part in splits]  # type: ignore[union-attr]
        if self.standardize:
            train = parts[0][0]
            mean = train.mean(0)
            scale = (train - mean).std()
            if not scale > 0:
                raise ValueError(f"data.standardize=true: {len(train)} training digits do not vary: give more.")
            parts = [None if part is None else ((part[0] - mean) / scale, part[1]) for part in parts]
        parts[0] = parts[0][0], flipped(parts[0][1], self.label_noise, self.split_seed)
        return Splits(*(None if part is None else Memory(part) for part in parts))  # type: ignore[arg-type]


def _table() -> Tensor:
    """(1797, 65) float64: 64 grey levels from 0 to 16, and the label.

    The file is read without scikit-learn, whose import takes a second; a version that has it elsewhere is imported.
    """
    package = find_spec("sklearn")
    path = Path(package.origin or "").parent / "datasets" / "data" / "digits.csv.gz" if package else None
    if path and path.exists():
        return torch.from_numpy(np.loadtxt(path, delimiter=","))
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(np.column_stack([digits.data, digits.target]))


def flipped(labels: Tensor, noise: float, seed: int) -> Tensor:
    """The labels, (N,), with round(noise · N) of them replaced by one of the other classes, uniformly."""
    draw = torch.Generator().manual_seed(mix(seed, 1))
    chosen = torch.randperm(len(labels), generator=draw)[: round(noise * len(labels))]
    wrong = labels.clone()
    wrong[chosen] = (wrong[chosen] + torch.randint(1, CLASSES, chosen.shape, generator=draw)) % CLASSES
    return wrong
