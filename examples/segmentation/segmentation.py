"""Pictures of a bright disc and a striped square in noise, and a class for each pixel; those on a border have none."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

SIZE, NOTHING, DISC, SQUARE, BORDER = 24, 0, 1, 2, 255


class Pictures(Dataset):
    def __init__(self, count: int, seed: int = 0) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """A picture (1, 24, 24) and its classes (24, 24)."""
        draw = torch.Generator().manual_seed(self.seed * 100_000 + index)
        rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        classes, picture = torch.full((SIZE, SIZE), NOTHING), torch.zeros(SIZE, SIZE)
        for shape, texture in ((DISC, 1.0), (SQUARE, rows % 2)):
            row, column = torch.randint(5, SIZE - 5, (2,), generator=draw)
            radius = torch.randint(3, 6, (), generator=draw)
            down, right = (rows - row).float().abs(), (columns - column).float().abs()
            distance = torch.hypot(down, right) if shape == DISC else torch.maximum(down, right)
            picture = torch.where(distance <= radius, texture, picture)
            classes[distance <= radius] = shape
            classes[(distance - radius).abs() < 0.6] = BORDER
        return picture[None] + 0.4 * torch.randn(1, SIZE, SIZE, generator=draw), classes
