"""Families that had no part in the doctor's thresholds: they were written after the last of them, and run once."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.doctor_cases.families import Family, Samples, digits, drawn, entropy, integers, perceptron


def spirals() -> Samples:
    """Points on three spirals around each other."""
    targets, far = integers(80, 3, 3000), torch.rand(3000, generator=torch.Generator().manual_seed(81))
    angles = 2 * math.pi * (targets / 3 + far)
    points = far[:, None] * torch.stack([angles.cos(), angles.sin()], 1)
    return Samples(2 * points + 0.04 * drawn(82, 3000, 2), targets, 500)


def pairs() -> Samples:
    """Two digits: is the first the larger one? The target of equal ones is no."""
    whole, first, second = digits(), integers(83, 1797, 3000), integers(84, 1797, 3000)
    larger = (whole.targets[first] > whole.targets[second]).long()
    return Samples(torch.stack([whole.inputs[first], whole.inputs[second]], 1), larger, 500)


def graphs() -> Samples:
    """Graphs of ten nodes, in which neighbours are alike, unlike or neither in two of six features."""
    kinds, features = integers(85, 3, 3000), drawn(86, 3000, 10, 6)
    edges = (torch.rand(3000, 10, 10, generator=torch.Generator().manual_seed(87)) < 0.3).float().triu(1)
    edges = edges + edges.transpose(1, 2)
    near = edges @ features / edges.sum(2, keepdim=True).clamp(min=1)
    features[..., :2] += 1.5 * (kinds - 1)[:, None, None] * near[..., :2]
    return Samples(torch.cat([edges, features], 2), kinds, 500)


def mixture() -> Samples:
    """Spectra of forty values: shares of three peaks at fixed places, under noise; the targets are the shares."""
    shares = torch.distributions.Dirichlet(torch.ones(3))
    torch.manual_seed(88)
    parts = shares.sample((2500,))
    places = torch.arange(40.0)
    peaks = torch.exp(-(((places - torch.tensor([[12.0], [18.0], [26.0]])) / 5) ** 2))
    spectra = parts @ peaks + 0.1 * drawn(89, 2500, 40)
    return Samples(spectra, (parts - parts.mean(0)) / parts.std(0), 400)


def jumps() -> Samples:
    """Series of 16 values of noise and a jump in one of its quarters."""
    quarter, offset = integers(90, 4, 3000), integers(91, 4, 3000)
    after = torch.arange(16) >= (4 * quarter + offset)[:, None]
    return Samples((2.0 * after + 0.7 * drawn(92, 3000, 16))[..., None], quarter, 500)


def rings() -> Samples:
    """Points in eight dimensions, of four classes by the radius in three of them."""
    points = drawn(93, 3000, 8)
    radius = points[:, :3].norm(dim=1)
    edges = radius.quantile(torch.tensor([0.25, 0.5, 0.75]))
    return Samples(points, torch.bucketize(radius, edges), 500)


class Siamese(nn.Module):
    """The same perceptron for both of two inputs, and one for what it makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.both = perceptron([64, 48, 24], nn.ReLU), perceptron([48, 32, 2], nn.ReLU)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.both(torch.relu(self.each(inputs)).flatten(1))


class GraphNet(nn.Module):
    """Each node and the mean of its neighbours, twice: Hamilton et al. 2017, arXiv:1706.02216."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(12, 32), nn.Linear(64, 32), nn.Linear(32, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        edges, states = inputs[..., :10], inputs[..., 10:]
        mean = edges / edges.sum(2, keepdim=True).clamp(min=1)
        for layer in (self.first, self.second):
            states = torch.relu(layer(torch.cat([states, mean @ states], 2)))
        return self.head(states.mean(1))


class Elman(nn.Module):
    """Classes from the mean over the states of a plain recurrent net."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.RNN(1, 32, batch_first=True), nn.Linear(32, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cells(inputs)[0].mean(1))


class Experts(nn.Module):
    """Four perceptrons, mixed by the weights that a linear layer gives: Jacobs et al. 1991."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.experts = nn.Linear(8, 4), nn.ModuleList(perceptron([8, 24, 4], nn.GELU) for _ in range(4))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = torch.stack([expert(inputs) for expert in self.experts], 1)
        return (self.weights(inputs).softmax(1)[..., None] * outputs).sum(1)


UNSEEN = {
    "spirals": Family(spirals, lambda: perceptron([2, 64, 64, 3], nn.CELU), entropy, "amsgrad", 500),
    "pairs": Family(pairs, Siamese, entropy, "adafactor", 400),
    "graphs": Family(graphs, GraphNet, entropy, "adamw", 400),
    "mixture": Family(mixture, lambda: perceptron([40, 48, 3], nn.Softplus, nn.LayerNorm), F.mse_loss, "sgd", 500),
    "jumps": Family(jumps, Elman, entropy, "rmsprop", 400),
    "rings": Family(rings, Experts, entropy, "adadelta", 500),
}
"""The names of the optimizers are those of `runs.OPTIMIZERS`."""
