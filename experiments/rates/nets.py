"""The nets of the tasks, each made by a function or class with its sizes."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from experiments.doctor_cases import families, second, third, unseen

Residual, Bag, Factors, along_rows = families.Residual, families.Bag, families.Factors, families.along_rows
Mixer, DeepSet, Series, Last = second.Mixer, second.DeepSet, second.Series, second.Last
sound, group_norm, Siamese = second.sound, second.group_norm, unseen.Siamese
Dilated, GraphNet, Elman, Experts = third.Dilated, unseen.GraphNet, unseen.Elman, unseen.Experts
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU, "sine": third.Sines}


def perceptron(sizes: list[int], activation: str = "relu", norm: bool = False) -> nn.Module:
    """A multi-layer perceptron, with BatchNorm before each activation if `norm`."""
    return families.perceptron(sizes, ACTIVATIONS[activation], nn.BatchNorm1d if norm else None)


def convolution(norm: str, width: int = 16) -> nn.Module:
    """Two strided convolutions over images (3, 16, 16), with "batch" or "group" norm."""
    return families.convolution(nn.BatchNorm2d if norm == "batch" else partial(nn.GroupNorm, 4), width)


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
