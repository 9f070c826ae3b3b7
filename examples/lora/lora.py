"""Rows of numbers that count up or down, of unequal length, and batches of them."""

import random
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset


class Counting(Dataset):
    """Numbers modulo 10 with one of the `steps` between them, such as 9 7 5 3 1 9, of 4 to 16 terms."""

    def __init__(self, count: int, steps: Sequence[int], seed: int = 0) -> None:
        draw = random.Random(seed)
        drawn = [(draw.randrange(10), draw.choice(steps), draw.randint(4, 16)) for _ in range(count)]
        self.rows = [(torch.arange(terms) * step + first) % 10 for first, step, terms in drawn]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows[index]


def padded(rows: list[Tensor]) -> dict[str, Tensor]:
    """What the model takes; the padding, up to the longest row, has no labels."""
    input_ids = pad_sequence(rows, batch_first=True)
    labels = pad_sequence(rows, batch_first=True, padding_value=-100)
    return {"input_ids": input_ids, "attention_mask": (labels != -100).long(), "labels": labels}
