"""A net for rows of numbers and categories: an embedding for each category."""

import torch
from torch import Tensor, nn


class Rows(nn.Module):
    """The sizes `numbers`, `categories` and `classes` are those of the table."""

    def __init__(self, numbers: int, categories: list[int], classes: int, width: int = 64, size: int = 8) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(values, size) for values in categories)
        features = numbers + size * len(categories)
        self.layers = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, classes))

    def forward(self, rows: dict[str, Tensor]) -> Tensor:
        embedded = [embed(codes) for embed, codes in zip(self.embeddings, rows["categories"].T)]
        return self.layers(torch.cat([rows["numbers"], *embedded], dim=1))
