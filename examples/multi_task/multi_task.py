"""Three questions about an image of a digit: which digit it is, how it is turned, and how much ink it has."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.utils.data import Dataset


class Turned(Dataset):
    """Images of scikit-learn's digits, each turned by a random number of quarters."""

    def __init__(self, train: bool) -> None:
        digits = load_digits()
        parts = train_test_split(digits.images / 16, digits.target, test_size=360, random_state=0)
        images, targets = parts[0 if train else 1], parts[2 if train else 3]
        self.images, self.digits = torch.tensor(images, dtype=torch.float32), torch.tensor(targets)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, turn = self.images[index], torch.randint(4, ())
        return image.rot90(int(turn)), {"digit": self.digits[index], "turn": turn, "ink": image.sum()[None] / 64}


class Heads(nn.Module):
    """A body, and a head for each question."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in (("digit", 10), ("turn", 4), ("ink", 1))})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.body(images)
        return {name: head(found) for name, head in self.heads.items()}
