"""Families that were unseen when they were first run, after those of `second`. Then others followed them."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_iris, load_sample_images
from torch import Tensor, nn

from experiments.doctor_cases.families import Family, Samples, digit_rows, drawn, entropy, integers, perceptron
from experiments.doctor_cases.second import table


def iris() -> Samples:
    """150 flowers of three kinds."""
    return table(load_iris, 60, 30)


def photograph() -> Samples:
    """Places in scikit-learn's photograph of a flower as waves; the target is the brightness there."""
    grey = torch.tensor(load_sample_images().images[1]).float().mean(2)
    rows, columns = integers(61, 427, 4000), integers(62, 640, 4000)
    places = torch.stack([rows / 427, columns / 427], 1) @ (4 * drawn(63, 2, 24))
    values = grey[rows, columns]
    return Samples(torch.cat([places.sin(), places.cos()], 1), ((values - values.mean()) / values.std())[:, None], 500)


def order() -> Samples:
    """Series of 32 values with a high and a low peak under noise: which of them comes first?"""
    series, places = 0.7 * drawn(64, 3000, 32), torch.rand(3000, 32, generator=torch.Generator().manual_seed(65))
    high, low = places.topk(2, dim=1).indices.T
    every = torch.arange(3000)
    series[every, high] += 3.0
    series[every, low] -= 3.0
    return Samples(series[:, None], (high < low).long(), 500)


def masked() -> Samples:
    """Digits whose lower half is hidden; the target is the whole digit."""
    whole = digit_rows().inputs
    seen = whole.clone()
    seen[:, 4:] = 0.0
    return Samples(seen.flatten(1), whole.flatten(1), 397)


def clouds() -> Samples:
    """Clouds of points in twelve dimensions, of five classes that overlap."""
    targets = integers(66, 5, 3000)
    return Samples(drawn(67, 5, 12)[targets] + 1.2 * drawn(68, 3000, 12), targets, 500)


class Dilated(nn.Module):
    """Convolutions along a series, each twice as far as the one before: Yu & Koltun 2015, arXiv:1511.07122."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[Any] = [nn.Conv1d(1, 24, 3, padding=1), nn.ReLU()]
        for far in (2, 4, 8):
            layers += [nn.Conv1d(24, 24, 3, padding=far, dilation=far), nn.ReLU()]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(24, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.layers(inputs).mean(2))


class Sines(nn.Module):
    """Sines in place of an activation: Sitzmann et al. 2020, arXiv:2006.09661."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sin(math.pi * inputs)


THIRD = {
    "iris": Family(iris, lambda: perceptron([4, 16, 3], nn.Softplus), entropy, "momentum", 300),
    "photograph": Family(photograph, lambda: perceptron([48, 48, 48, 1], Sines), F.mse_loss, "nadam", 500),
    "order": Family(order, Dilated, entropy, "adamw", 400),
    "masked": Family(masked, lambda: perceptron([64, 64, 64], nn.Hardswish), F.smooth_l1_loss, "adagrad", 400),
    "clouds": Family(clouds, lambda: perceptron([12, 32, 32, 5], nn.Mish), F.multi_margin_loss, "rmsprop", 400),
}
"""The names of the optimizers are those of `runs.OPTIMIZERS`."""
