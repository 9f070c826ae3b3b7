"""Handwritten digits, 8×8 grey: the set that scikit-learn carries, for runs of seconds."""

import torch

from data.module import DataModule, Splits
from data.order import permutation
from data.source import Memory

_SPLIT_SEED = 0
_SIZES = [1257, 180, 360]


class Digits(DataModule):
    """1,797 digits as (N, 1, 8, 8) floats in [0, 1], cut 1,257 / 180 / 360 by a constant permutation."""

    @property
    def shape(self) -> dict[str, int]:
        return {"in_features": 64, "in_channels": 1, "classes": 10}

    def read(self) -> Splits:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
        labels = torch.from_numpy(digits.target).long()
        parts = permutation(len(labels), _SPLIT_SEED, epoch=0).split(_SIZES)
        return Splits(*(Memory(images[part], labels[part]) for part in parts))
