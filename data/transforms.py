"""Random crops and centre crops of one image, with the generator of torch, which is seeded for each sample."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from data.bounds import integer

if TYPE_CHECKING:
    from PIL.Image import Image


class RandomResizedCrop:
    """A crop of a random part of the image, scaled to `size` × `size`, and mirrored with probability ½ where `flip`.

    The crop has a share of the area drawn from `scale`, and a ratio of width to height drawn from `ratio`, evenly on
    the logarithm (Szegedy et al. 2014, arXiv:1409.4842). After ten crops that do not fit it is the centre of the image.
    Gives (3, size, size) uint8.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = True,
    ) -> None:
        self.size, self.scale, self.ratio, self.flip = integer("data.transform.size", size), scale, ratio, flip
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"data.transform.scale={scale} must be two shares of the area, the smaller one first.")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"data.transform.ratio={ratio} must be two numbers above 0, the smaller one first.")

    def __call__(self, image: "Image") -> Tensor:
        found = image.resize((self.size, self.size), _bilinear(), box=self._box(image.width, image.height))
        pixels = as_tensor(found)
        return pixels.flip(2) if self.flip and torch.rand(()) < 0.5 else pixels

    def _box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the crop."""
        low, high = (math.log(value) for value in self.ratio)
        for _ in range(10):
            area = width * height * _between(*self.scale)
            ratio = math.exp(_between(low, high))
            wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < tall <= height:
                left = int(torch.randint(width - wide + 1, ()))
                top = int(torch.randint(height - tall + 1, ()))
                return left, top, left + wide, top + tall
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        return left, top, left + side, top + side


class CentreCrop:
    """The centre of the image, scaled to `size` × `size`: the middle `share` of its shorter side.

    With the usual 224 of 256 pixels `share` is 0.875. Gives (3, size, size) uint8.
    """

    def __init__(self, size: int, share: float = 0.875) -> None:
        self.size, self.share = integer("data.eval_transform.size", size), share
        if not 0 < share <= 1:
            raise ValueError(f"data.eval_transform.share={share} must be above 0 and at most 1.")

    def __call__(self, image: "Image") -> Tensor:
        side = min(image.size) * self.share
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return as_tensor(image.resize((self.size, self.size), _bilinear(), box=box))


def as_tensor(image: "Image") -> Tensor:
    """(3, H, W) uint8 of an RGB image."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), dtype=torch.float64))


def _bilinear() -> int:
    from PIL.Image import Resampling

    return Resampling.BILINEAR
