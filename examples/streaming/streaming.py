"""A stream of throws that does not end, and how far each flies."""

import math
import random
from collections.abc import Iterator

import torch
from datasets import IterableDataset
from torch import Tensor


def throws(seed: int) -> Iterator[dict[str, float]]:
    """Speed in m/s, angle, and distance in m."""
    draw = random.Random(seed)
    while True:
        speed, angle = draw.uniform(5, 30), draw.uniform(0, math.pi / 2)
        yield {"speed": speed, "angle": angle, "distance": speed**2 * math.sin(2 * angle) / 9.81}


def stream(seed: int, count: int | None = None) -> IterableDataset:
    """The first `count` throws, or all."""
    rows = IterableDataset.from_generator(throws, gen_kwargs={"seed": seed})
    return rows if count is None else rows.take(count)


def scaled(rows: list[dict[str, float]]) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a batch, all of them near 1."""
    inputs = torch.tensor([[row["speed"] / 10, row["angle"]] for row in rows])
    return inputs, torch.tensor([[row["distance"] / 40] for row in rows])
