"""Sequences of unequal length in which each number follows from the two before it, and batches of them."""

import random

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset


class Progressions(Dataset):
    """Numbers modulo 10 in equal steps of 1 to 3, such as 3 5 7 9 1 3, of 4 to 16 terms."""

    def __init__(self, count: int, seed: int = 0) -> None:
        draw = random.Random(seed)
        drawn = [(draw.randrange(10), draw.randint(1, 3), draw.randint(4, 16)) for _ in range(count)]
        self.rows = [torch.arange(terms) * step + first for first, step, terms in drawn]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index] % 10


def padded(rows: list[Tensor]) -> dict[str, Tensor]:
    """What the model takes; the padding, up to the longest row, has no labels."""
    input_ids = pad_sequence(rows, batch_first=True)
    labels = pad_sequence(rows, batch_first=True, padding_value=-100)
    return {"input_ids": input_ids, "attention_mask": (labels != -100).long(), "labels": labels}
