"""Made-up reviews, each good or bad, and batches that are padded to the longest review."""

import random

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

THINGS, GOOD, BAD = (
    "soup bread room staff bed view".split(),
    "great warm kind fresh".split(),
    "cold rude stale loud".split(),
)
WORDS = ["[PAD]", "the", "was", "not", "and", *THINGS, *GOOD, *BAD]


def review(draw: random.Random) -> tuple[str, int]:
    """One or three opinions, some of them negated, and whether most are good."""
    texts, goods = [], []
    for _ in range(draw.choice([1, 3])):
        good, negated = draw.random() < 0.5, draw.random() < 0.5
        opinion = draw.choice(GOOD if good != negated else BAD)
        texts.append(f"the {draw.choice(THINGS)} was {'not ' * negated}{opinion}")
        goods.append(good)
    return " and ".join(texts), int(2 * sum(goods) > len(goods))


class Reviews(Dataset):
    def __init__(self, count: int, seed: int = 0) -> None:
        draw = random.Random(seed)
        self.reviews = [review(draw) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.reviews)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        text, label = self.reviews[index]
        return torch.tensor([WORDS.index(word) for word in text.split()]), label


def padded(samples: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    """What the model takes: tokens up to the longest review, where there are some, and the labels."""
    tokens, labels = zip(*samples)
    input_ids = pad_sequence(tokens, batch_first=True)
    return {"input_ids": input_ids, "attention_mask": (input_ids != 0).long(), "labels": torch.tensor(labels)}
