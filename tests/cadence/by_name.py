"""Data and a net whose batches have names, as those of transformers do."""

from types import SimpleNamespace

import torch
from torch import nn

from data.module import DataModule, Splits
from data.source import Memory


class Rows(DataModule):
    """Points on both sides of a plane."""

    def read(self) -> Splits:
        x = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
        batch = {"x": x, "labels": (x.sum(1) > 0).long()}
        parts = [{name: part[a:b] for name, part in batch.items()} for a, b in ((0, 64), (64, 80), (80, 96))]
        return Splits(*map(Memory, parts))


class Net(nn.Linear):
    """It gives its own loss, where it gets labels."""

    def __init__(self) -> None:
        super().__init__(3, 2)

    def forward(self, x, labels=None):
        logits = super().forward(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)


class Pairs:
    """The same points as a map-style data set of pairs."""

    def __init__(self, begin: int, end: int) -> None:
        source = Rows(batch_size=1).read()
        stored = [split.stored for split in source]
        self.x, self.labels = (torch.cat([part[name] for part in stored])[begin:end] for name in ("x", "labels"))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.x[index], int(self.labels[index])


def collate(samples: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
    """A batch with names."""
    return {"x": torch.stack([x for x, _ in samples]), "labels": torch.tensor([label for _, label in samples])}
