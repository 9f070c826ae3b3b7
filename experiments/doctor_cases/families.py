"""Nets and data of the families in `USED`: the doctor's thresholds were set on the first, and mended on all of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Samples:
    """Inputs and targets; the last `validation` of them are not trained on."""

    inputs: Tensor
    targets: Tensor
    validation: int

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Training samples, drawn with replacement."""
        picked = torch.randint(len(self.inputs) - self.validation, (size,), generator=generator)
        return self.inputs[picked], self.targets[picked]

    @property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """The samples for validation."""
        return self.inputs[-self.validation :], self.targets[-self.validation :]


@dataclass(frozen=True)
class Family:
    """A net on data with a loss; `optimizer` is a name of `runs.OPTIMIZERS`, `updates` the length of a run."""

    data: Callable[[], Samples]
    net: Callable[[], nn.Module]
    loss: Loss
    optimizer: str
    updates: int


def entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over all targets, also of sequences."""
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def integers(seed: int, high: int, *shape: int) -> Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def digits(rows: bool = False, own: bool = False) -> Samples:
    """1,797 digits of 8 × 8; `rows`: as sequences of rows, `own`: each is its own target."""
    inputs, targets = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    inputs = (inputs[order] / 16 - 0.3).float()
    return Samples(inputs.view(-1, 8, 8) if rows else inputs, inputs if own else targets[order], 397)


def teacher() -> Samples:
    """A regression on the outputs of a fixed tanh net, with noise."""
    inputs, hidden, last = drawn(1, 3000, 16), drawn(2, 16, 32), drawn(3, 32, 1)
    return Samples(inputs, torch.tanh(inputs @ hidden / 4) @ last / 4 + 0.1 * drawn(4, 3000, 1), 500)


def text(length: int) -> Samples:
    """Characters of this project's own pages, cut into windows."""
    pages = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    characters = "".join(page.read_text(encoding="utf-8") for page in pages).encode("ascii", "ignore")
    tokens = torch.frombuffer(bytearray(characters), dtype=torch.uint8).long().clamp(max=127)
    count = len(tokens) // (length + 1)
    windows = tokens[: count * (length + 1)].view(count, length + 1)
    return Samples(windows[:, :-1], windows[:, 1:], count // 10)


def bars() -> Samples:
    """Images of 16 × 16 in three colours with a bar in one of ten places, under noise."""
    images, targets = 1.2 * drawn(5, 3000, 3, 16, 16), integers(6, 10, 3000)
    for image, target in zip(images, targets.tolist()):
        image[:, 3 * (target % 5) : 3 * (target % 5) + 2, 8 * (target // 5) : 8 * (target // 5) + 8] += 1.0
    return Samples(images, targets, 500)


def bags() -> Samples:
    """Bags of twelve of 200 tokens; the class follows from the mean of hidden vectors."""
    tokens = integers(7, 200, 4000, 12)
    return Samples(tokens, drawn(8, 200, 4)[tokens].mean(1).argmax(1), 500)


def ratings() -> Samples:
    """Ratings by 300 users of 200 things: a product of hidden vectors, with noise."""
    pairs = torch.stack([integers(9, 300, 9000), integers(10, 200, 9000)], 1)
    products = (drawn(11, 300, 3)[pairs[:, 0]] * drawn(12, 200, 3)[pairs[:, 1]]).sum(1, keepdim=True)
    return Samples(pairs, products / math.sqrt(3) + 0.2 * drawn(13, 9000, 1), 1000)


def friedman() -> Samples:
    """A regression on ten numbers, five of which matter: Friedman 1991, doi:10.1214/aos/1176347963."""
    inputs = torch.rand(3000, 10, generator=torch.Generator().manual_seed(14))
    a, b, c, d, e = inputs[:, :5].T
    values = 10 * torch.sin(math.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e
    return Samples(inputs, ((values - values.mean()) / values.std())[:, None] + 0.1 * drawn(15, 3000, 1), 500)


def perceptron(sizes: list[int], activation: type[nn.Module], norm: type[nn.Module] | None = None) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in zip(sizes, sizes[1:-1]):
        layers += [nn.Linear(a, b), *([norm(b)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class Transformer(nn.Module):
    """Blocks over a sequence of vectors; `causal` predicts at each place, otherwise from the mean over all places."""

    def __init__(self, front: nn.Module, places: int, outputs: int, layers: int, first: bool, causal: bool) -> None:
        super().__init__()
        self.front, self.places, self.causal = front, nn.Parameter(0.02 * torch.randn(places, 32)), causal
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=first) for _ in range(layers)
        )
        self.head = nn.Linear(32, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        states = self.front(inputs) + self.places
        mask = torch.triu(torch.full((len(self.places),) * 2, -math.inf), 1) if self.causal else None
        for block in self.blocks:
            states = block(states, src_mask=mask)
        return self.head(states if self.causal else states.mean(1))


class Recurrent(nn.Module):
    """Characters by a recurrent net."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.tokens, self.cells, self.head = nn.Embedding(128, 40), kind(40, 40, batch_first=True), nn.Linear(40, 128)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.cells(self.tokens(inputs))[0])


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


class Patches(nn.Module):
    """Patches of an image as a sequence of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, 32, 4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.cut(inputs).flatten(2).transpose(1, 2)


def convolution(norm: Callable[[int], nn.Module], width: int = 16) -> nn.Module:
    sizes = ((3, width), (width, 2 * width))
    first, second = ([nn.Conv2d(a, b, 3, 2, 1), norm(b), nn.ReLU()] for a, b in sizes)
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * width, 10))


def along_rows() -> nn.Module:
    layers: list[Any] = [nn.Conv1d(8, 32, 3, padding=1), nn.GELU(), nn.Conv1d(32, 32, 3, padding=1), nn.GELU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))


def digit_rows() -> Samples:
    return digits(rows=True)


def gpt() -> nn.Module:
    return Transformer(nn.Embedding(128, 32), 24, 128, 2, True, True)


USED = {
    "perceptron": Family(digits, lambda: perceptron([64, 64, 10], nn.ReLU), entropy, "adamw", 500),
    "momentum": Family(digits, lambda: perceptron([64, 64, 10], nn.ReLU), entropy, "momentum", 500),
    "deep tanh": Family(digits, lambda: perceptron([64, *[48] * 6, 10], nn.Tanh), entropy, "adamw", 500),
    "regression": Family(teacher, lambda: perceptron([16, 64, 1], nn.ReLU), F.mse_loss, "adamw", 500),
    "gpt": Family(lambda: text(24), gpt, entropy, "adamw", 400),
    "BatchNorm": Family(bars, lambda: convolution(nn.BatchNorm2d), entropy, "momentum", 300),
    "post-norm": Family(
        digit_rows, lambda: Transformer(nn.Linear(8, 32), 8, 10, 4, False, False), entropy, "adamw", 400
    ),
    "autoencoder": Family(
        lambda: digits(own=True), lambda: perceptron([64, 32, 8, 32, 64], nn.ReLU), F.mse_loss, "adamw", 600
    ),
    "bag": Family(bags, Bag, entropy, "adagrad", 500),
    "gru": Family(lambda: text(24), lambda: Recurrent(nn.GRU), entropy, "rmsprop", 300),
    "residual": Family(digits, Residual, entropy, "nadam", 400),
    "patches": Family(bars, lambda: Transformer(Patches(), 16, 10, 2, True, False), entropy, "adamw", 300),
    "factors": Family(ratings, Factors, F.mse_loss, "adamw", 600),
    "friedman": Family(friedman, lambda: perceptron([10, 64, 64, 1], nn.SiLU), F.mse_loss, "adamw", 500),
    "BatchNorm1d": Family(
        digits, lambda: perceptron([64, 48, 48, 48, 10], nn.ReLU, nn.BatchNorm1d), entropy, "momentum", 400
    ),
    "rows": Family(digit_rows, along_rows, entropy, "lion", 400),
}
