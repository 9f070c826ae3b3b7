"""The nets of the tasks, each made by a function or class with its sizes."""

import math

import torch
from torch import Tensor, nn

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU}


def perceptron(sizes: list[int], activation: str = "relu", norm: bool = False) -> nn.Module:
    """A multi-layer perceptron, with BatchNorm before each activation if `norm`."""
    layers: list[nn.Module] = []
    for a, b in zip(sizes, sizes[1:-1]):
        layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm else []), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def convolution(norm: str, width: int = 16) -> nn.Module:
    """Two strided convolutions over images (3, 16, 16), with "batch" or "group" norm."""
    layers: list[nn.Module] = []
    for a, b in ((3, width), (width, 2 * width)):
        layers += [nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b) if norm == "batch" else nn.GroupNorm(4, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * width, 10))


def along_rows(width: int = 32) -> nn.Module:
    """Two convolutions along the eight rows of a digit."""
    layers: list[nn.Module] = [nn.Conv1d(8, width, 3, padding=1), nn.GELU()]
    layers += [nn.Conv1d(width, width, 3, padding=1), nn.GELU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * width, 10))


class Recurrent(nn.Module):
    """A recurrent net, RNN, GRU or LSTM: over characters it predicts at each place, over rows from the last state."""

    def __init__(self, kind: str, width: int, vocabulary: int = 0) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.front = nn.Embedding(vocabulary, width) if vocabulary else nn.Linear(8, width)
        self.cells = getattr(nn, kind)(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary or 10)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.cells(self.front(inputs))[0]
        return self.head(states if self.vocabulary else states[:, -1])


class Residual(nn.Module):
    """A perceptron with residual blocks of LayerNorm."""

    def __init__(self, width: int = 48, blocks: int = 4) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        parts = (
            [nn.LayerNorm(width), nn.Linear(width, width), nn.ELU(), nn.Linear(width, width)] for _ in range(blocks)
        )
        self.blocks = nn.ModuleList(nn.Sequential(*part) for part in parts)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.first(inputs)
        for block in self.blocks:
            states = states + block(states)
        return self.head(states)


class Bag(nn.Module):
    """The mean of the embeddings of 200 tokens, and a linear layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(200, width), nn.Linear(width, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.tokens(inputs).mean(1))


class Factors(nn.Module):
    """The product of a vector for each of 300 users and one for each of 200 things."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.users, self.things = (nn.Embedding(count, width) for count in (300, 200))
        for one in (self.users, self.things):
            nn.init.normal_(one.weight, std=0.3)

    def forward(self, inputs: Tensor) -> Tensor:
        return (self.users(inputs[:, 0]) * self.things(inputs[:, 1])).sum(1, keepdim=True)


class Encoder(nn.Module):
    """A transformer that classifies: rows of a digit, or 16 patches of an image; LayerNorm first or last in a block."""

    def __init__(self, width: int, layers: int, first: bool = True, images: bool = False) -> None:
        super().__init__()
        self.front = nn.Conv2d(3, width, 4, 4) if images else nn.Linear(8, width)
        self.images, self.places = images, nn.Parameter(0.02 * torch.randn(16 if images else 8, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True, norm_first=first)
            for _ in range(layers)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.front(inputs)
        states = (states.flatten(2).transpose(1, 2) if self.images else states) + self.places
        for block in self.blocks:
            states = block(states)
        return self.head(states.mean(1))


class Decoder(nn.Module):
    """A causal transformer over characters with LayerNorm last in a block, as the first ones had it."""

    def __init__(self, width: int, layers: int, places: int, vocabulary: int = 65) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Parameter(0.02 * torch.randn(places, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True) for _ in range(layers)
        )
        self.head = nn.Linear(width, vocabulary)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.tokens(inputs) + self.places
        mask = torch.triu(torch.full((inputs.shape[1],) * 2, -math.inf), 1)
        for block in self.blocks:
            states = block(states, src_mask=mask)
        return self.head(states)
