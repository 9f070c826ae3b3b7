"""Made-up wishes to travel, with a tag for each word: where from, where to, when, or none of these."""

import random

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

TAGS = ["O", "FROM", "TO", "DAY"]
CITIES, DAYS = "oslo rome paris lima cairo delhi".split(), "monday friday today tomorrow".split()
WORDS = ["[PAD]", *"i want a train from to via on please".split(), *CITIES, *DAYS]


def wish(draw: random.Random) -> list[tuple[str, str]]:
    """Words with tags; only the word before a city tells its tag."""
    parts = [[("from", "O"), (draw.choice(CITIES), "FROM")], [("to", "O"), (draw.choice(CITIES), "TO")]]
    parts += [[("via", "O"), (draw.choice(CITIES), "O")], [("on", "O"), (draw.choice(DAYS), "DAY")]]
    chosen = draw.sample(parts, draw.randint(1, 4))
    start = draw.choice(["", "please", "i want a train"])
    return [(word, "O") for word in start.split()] + [pair for part in chosen for pair in part]


class Wishes(Dataset):
    def __init__(self, count: int, seed: int = 0) -> None:
        draw = random.Random(seed)
        self.wishes = [wish(draw) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.wishes)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        words, tags = zip(*self.wishes[index])
        return torch.tensor([WORDS.index(word) for word in words]), torch.tensor([TAGS.index(tag) for tag in tags])


def padded(samples: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """What the model takes; the padding, up to the longest wish, has no labels."""
    words, tags = zip(*samples)
    input_ids = pad_sequence(words, batch_first=True)
    labels = pad_sequence(tags, batch_first=True, padding_value=-100)
    return {"input_ids": input_ids, "attention_mask": (input_ids != 0).long(), "labels": labels}
