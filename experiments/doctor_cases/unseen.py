"""Families that had no part in the doctor's thresholds: they were written after the last of them, and run once."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes, load_wine
from torch import Tensor, nn

from experiments.doctor_cases.families import Family, Samples, drawn, entropy, integers, perceptron

TEXTS = Path(__file__).parents[2] / "trainer"


def table(load: Any, seed: int, validation: int) -> Samples:
    """A table of scikit-learn's; numbers are standardised, classes are not."""
    inputs, targets = (torch.as_tensor(part) for part in load(return_X_y=True))
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed))
    inputs = ((inputs - inputs.mean(0)) / inputs.std(0)).float()
    if targets.is_floating_point():
        targets = ((targets - targets.mean()) / targets.std()).float()[:, None]
    return Samples(inputs[order], targets[order], validation)


def wine() -> Samples:
    """178 wines of three growers."""
    return table(load_wine, 40, 38)


def diabetes() -> Samples:
    """The course of a disease in 442 people, from ten numbers."""
    return table(load_diabetes, 41, 92)


def tones() -> Samples:
    """Sounds of 96 values with one of six frequencies, a phase of its own, and noise."""
    targets, phases = (
        integers(42, 6, 3000),
        2 * math.pi * torch.rand(3000, 1, generator=torch.Generator().manual_seed(43)),
    )
    sounds = torch.sin((0.25 + 0.12 * targets)[:, None] * torch.arange(96.0) + phases)
    return Samples((sounds + drawn(44, 3000, 96))[:, None], targets, 500)


def walks() -> Samples:
    """Series of forty values, each of which keeps one of three shares of the value before it."""
    targets, noise = integers(45, 3, 3000), drawn(46, 40, 3000)
    share, values = torch.tensor([0.0, 0.5, 0.95])[targets], [noise[0]]
    for one in noise[1:]:
        values.append(share * values[-1] + one)
    return Samples(torch.stack(values, 1)[..., None], targets, 500)


def blobs() -> Samples:
    """Images of 16 × 16 with two discs under noise; the target says for each pixel whether it is in one."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    places, sizes = integers(47, 16, 2, 2, 2000, 1, 1), 2 + integers(48, 3, 2, 2000, 1, 1)
    inside = (((rows - places[0]) ** 2 + (columns - places[1]) ** 2) < sizes**2).any(0).float()
    return Samples((inside + 0.8 * drawn(49, 2000, 16, 16))[:, None], inside[:, None], 300)


def sets() -> Samples:
    """Sets of eight points; the target is the largest distance of one from their middle."""
    points = drawn(50, 3000, 8, 2) * (0.5 + torch.rand(3000, 1, 1, generator=torch.Generator().manual_seed(51)))
    far = (points - points.mean(1, keepdim=True)).norm(dim=2).amax(1, keepdim=True)
    return Samples(points, (far - far.mean()) / far.std(), 500)


def code() -> Samples:
    """Eight characters of this project's code, and the next one."""
    texts = "".join(path.read_text(encoding="utf-8") for path in sorted(TEXTS.glob("*/*.py")))
    tokens = torch.frombuffer(bytearray(texts.encode("ascii", "ignore")), dtype=torch.uint8).long().clamp(max=127)
    windows = tokens[: len(tokens) // 9 * 9].view(-1, 9)
    return Samples(windows[:, :8], windows[:, 8], 2000)


class Last(nn.Module):
    """Classes from the last state of a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.GRU(1, 24, batch_first=True), nn.Linear(24, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cells(inputs)[0][:, -1])


class DeepSet(nn.Module):
    """A perceptron for each point, their mean, and another: Zaheer et al. 2017, arXiv:1703.06114."""

    def __init__(self) -> None:
        super().__init__()
        self.points, self.whole = perceptron([2, 48, 48], nn.ReLU), perceptron([48, 48, 1], nn.ReLU)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.whole(self.points(inputs).mean(1))


class NextCharacter(nn.Module):
    """The next character from the embeddings of those before: Bengio et al. 2003."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.layers = nn.Embedding(128, 16), perceptron([128, 96, 128], nn.Tanh)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(self.tokens(inputs).flatten(1))


def sound() -> nn.Module:
    layers: list[Any] = [nn.Conv1d(1, 16, 9, 2), nn.InstanceNorm1d(16, affine=True), nn.LeakyReLU()]
    layers += [nn.Conv1d(16, 24, 9, 2), nn.LeakyReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(24, 6)]
    return nn.Sequential(*layers)


def pixels() -> nn.Module:
    layers: list[Any] = [nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(16, 1, 1))


UNSEEN = {
    "wine": Family(wine, lambda: perceptron([13, 32, 32, 3], nn.SELU), entropy, "adagrad", 300),
    "diabetes": Family(diabetes, lambda: perceptron([10, 48, 48, 1], nn.GELU), F.mse_loss, "adamax", 500),
    "tones": Family(tones, sound, entropy, "nesterov", 400),
    "walks": Family(walks, Last, entropy, "adam", 300),
    "blobs": Family(blobs, pixels, F.binary_cross_entropy_with_logits, "adamw", 300),
    "sets": Family(sets, DeepSet, F.mse_loss, "radam", 500),
    "code": Family(code, NextCharacter, entropy, "lion", 500),
}
"""The names of the optimizers are those of `runs.OPTIMIZERS`."""
