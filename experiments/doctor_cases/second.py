"""Families that were unseen when they were first run: seven, and after a mend seven more. Then others followed them."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes, load_sample_images, load_wine
from torch import Tensor, nn

from experiments.doctor_cases.families import Family, Samples, drawn, entropy, integers, perceptron

ROOT = Path(__file__).parents[2]


def gratings() -> Samples:
    """Grey images of 16 × 16 with waves in one of eight directions, of any phase, under noise."""
    targets, phases = integers(20, 8, 3000), 2 * math.pi * torch.rand(3000, generator=torch.Generator().manual_seed(21))
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    angles = (math.pi * targets / 8)[:, None, None]
    waves = torch.sin(0.9 * (rows * angles.sin() + columns * angles.cos()) + phases[:, None, None])
    return Samples((waves + 1.5 * drawn(22, 3000, 16, 16))[:, None], targets, 500)


def waves() -> Samples:
    """Windows of 24 values of two sines with noise; the target is the value after them."""
    time = torch.arange(4024.0)
    series = torch.sin(0.31 * time) + 0.6 * torch.sin(0.113 * time + 1) + 0.1 * drawn(23, 4024)
    windows = series.unfold(0, 25, 1)[:4000]
    return Samples(windows[:, :24, None], windows[:, 24:], 500)


def patches(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Standardised colour patches of scikit-learn's two photographs, and from which each one is."""
    photographs = torch.stack([torch.tensor(one) for one in load_sample_images().images]).permute(0, 3, 1, 2) / 255
    which, tops, lefts = (
        integers(seed, 2, 3000),
        integers(seed + 1, 427 - size, 3000),
        integers(seed + 2, 640 - size, 3000),
    )
    cut = [
        photographs[i, :, a : a + size, b : b + size] for i, a, b in zip(which.tolist(), tops.tolist(), lefts.tolist())
    ]
    images = torch.stack(cut)
    return (images - images.mean()) / images.std(), which


def photographs() -> Samples:
    """Grey patches of 16 × 16 without their mean: of which photograph are they?"""
    images, which = patches(16, 24)
    grey = images.mean(1)
    return Samples(grey - grey.mean((1, 2), keepdim=True), which, 500)


def noisy_patches() -> Samples:
    """Patches of 8 × 8 under noise; the target is the patch without it."""
    clean = patches(8, 27)[0].flatten(1)
    return Samples(clean + 0.5 * drawn(30, *clean.shape), clean, 500)


def cancer() -> Samples:
    """Thirty measures of 569 tumours, of two kinds."""
    inputs, targets = (torch.as_tensor(part) for part in load_breast_cancer(return_X_y=True))
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(31))
    inputs = ((inputs - inputs.mean(0)) / inputs.std(0)).float()
    return Samples(inputs[order], targets[order], 119)


def kinds() -> Samples:
    """Windows of 64 characters of this project's pages, code and configs: of which are they?"""
    windows = []
    for pattern in ("docs/*.md", "trainer/**/*.py", "conf/**/*.yaml"):
        texts = "".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob(pattern)))
        tokens = torch.frombuffer(bytearray(texts.encode("ascii", "ignore")), dtype=torch.uint8).long().clamp(max=127)
        places = torch.linspace(0, len(tokens) - 65, 1200).long()
        windows.append(tokens[places[:, None] + torch.arange(64)])
    order = torch.randperm(3600, generator=torch.Generator().manual_seed(32))
    return Samples(torch.cat(windows)[order], torch.arange(3).repeat_interleave(1200)[order], 600)


def preferences() -> Samples:
    """Pairs of things, and which of them a user likes more, by a product of hidden vectors; a tenth is wrong."""
    users, first, second = (integers(seed, count, 9000) for seed, count in ((33, 200), (34, 150), (35, 150)))
    tastes, things = drawn(36, 200, 3), drawn(37, 150, 3)
    liked = (tastes[users] * (things[first] - things[second])).sum(1).sign()
    wrong = torch.rand(9000, generator=torch.Generator().manual_seed(38)) < 0.1
    return Samples(torch.stack([users, first, second], 1), torch.where(wrong, -liked, liked)[:, None], 1000)


class Series(nn.Module):
    """A value from the last state of an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(1, 32, batch_first=True), nn.Linear(32, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cells(inputs)[0][:, -1])


class Mixer(nn.Module):
    """Perceptrons over the places and over the channels, in turn: Tolstikhin et al. 2021, arXiv:2105.01601."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.head = nn.Conv2d(1, 32, 4, 4), nn.Linear(32, 2)
        self.places = nn.ModuleList(perceptron([16, 32, 16], nn.GELU) for _ in range(2))
        self.channels = nn.ModuleList(perceptron([32, 64, 32], nn.GELU) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(5))

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.cut(inputs[:, None]).flatten(2).transpose(1, 2)
        for i, (places, channels) in enumerate(zip(self.places, self.channels)):
            states = states + places(self.norms[2 * i](states).transpose(1, 2)).transpose(1, 2)
            states = states + channels(self.norms[2 * i + 1](states))
        return self.head(self.norms[4](states).mean(1))


class Characters(nn.Module):
    """Two convolutions along characters, and their largest values."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(128, 24), nn.Linear(32, 3)
        self.layers = nn.Sequential(nn.Conv1d(24, 32, 5), nn.ReLU(), nn.Conv1d(32, 32, 5), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.layers(self.tokens(inputs).transpose(1, 2)).amax(2))


class Ranking(nn.Module):
    """How much more a user likes the first thing than the second."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.things = nn.Embedding(200, 8), nn.Embedding(150, 8)
        for one in (self.users, self.things):
            nn.init.normal_(one.weight, std=0.3)

    def forward(self, inputs: Tensor) -> Tensor:
        user, first, second = inputs.T
        return (self.users(user) * (self.things(first) - self.things(second))).sum(1, keepdim=True)


def group_norm() -> nn.Module:
    layers: list[Any] = [nn.Conv2d(1, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1)]
    layers += [nn.GroupNorm(4, 32), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 8)]
    return nn.Sequential(*layers)


def logistic(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of pairs: Rendle et al. 2009, arXiv:1205.2618."""
    return F.softplus(-targets * outputs).mean()


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
    texts = "".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("trainer/*/*.py")))
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


SECOND = {
    "GroupNorm": Family(gratings, group_norm, entropy, "nesterov", 400),
    "lstm": Family(waves, Series, F.mse_loss, "adam", 300),
    "mixer": Family(photographs, Mixer, entropy, "adamw", 300),
    "denoiser": Family(noisy_patches, lambda: perceptron([192, 96, 24, 96, 192], nn.GELU), F.l1_loss, "radam", 500),
    "cancer": Family(cancer, lambda: perceptron([30, 32, 32, 2], nn.Tanh, nn.LayerNorm), entropy, "sgd", 400),
    "characters": Family(kinds, Characters, entropy, "adamax", 300),
    "ranking": Family(preferences, Ranking, logistic, "rmsprop", 600),
    "wine": Family(wine, lambda: perceptron([13, 32, 32, 3], nn.SELU), entropy, "adagrad", 300),
    "diabetes": Family(diabetes, lambda: perceptron([10, 48, 48, 1], nn.GELU), F.mse_loss, "adamax", 500),
    "tones": Family(tones, sound, entropy, "nesterov", 400),
    "walks": Family(walks, Last, entropy, "adam", 300),
    "blobs": Family(blobs, pixels, F.binary_cross_entropy_with_logits, "adamw", 300),
    "sets": Family(sets, DeepSet, F.mse_loss, "radam", 500),
    "code": Family(code, NextCharacter, entropy, "lion", 500),
}
"""The names of these optimizers are those of `runs.OPTIMIZERS`."""
