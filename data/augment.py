"""Random augmentation of a batch of images on its device; the same (images, seed) give the same result."""

import torch
import torch.nn.functional as F
from torch import Tensor

from data.bounds import integer


class Augment:
    """Per image: a random crop after padding by `crop` pixels, a flip with probability ½, a square set to zero.

    `padding` is "reflect" or "zero". `cutout` is the side of the square in pixels, centred anywhere in the
    image and cut at its border (DeVries & Taylor 2017, arXiv:1708.04552). ValueError for a number out of
    range.
    """

    def __init__(self, crop: int = 0, flip: bool = False, cutout: int = 0, padding: str = "reflect") -> None:
        if padding not in ("reflect", "zero"):
            raise ValueError(f"padding={padding!r} is unknown: use 'reflect' or 'zero'.")
        self.crop, self.cutout = integer("crop", crop, low=0), integer("cutout", cutout, low=0)
        self.flip, self.padding = flip, padding

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """`images` (N, C, H, W) floats; the result has the same shape."""
        generator = torch.Generator(images.device).manual_seed(seed)
        if self.crop or self.flip:
            images = self._crop_and_flip(images, generator)
        return self._cut_out(images, generator) if self.cutout else images

    def _crop_and_flip(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = images.shape
        if self.padding == "reflect" and self.crop >= min(height, width):
            raise ValueError(f"crop={self.crop} must be below the image side {min(height, width)} to reflect it.")
        device = images.device
        rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
        shifts = torch.randint(0, 2 * self.crop + 1, (2, count, 1), generator=generator, device=device)
        rows, columns = rows + shifts[0], columns + shifts[1]
        if self.flip:
            mirrored = torch.rand((count, 1), generator=generator, device=device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = self._pad(images)
        pixels = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        pixels = pixels.view(count, 1, height * width).expand(-1, channels, -1)
        return padded.flatten(2).gather(2, pixels).view(images.shape)

    def _pad(self, images: Tensor) -> Tensor:
        if not self.crop:
            return images
        return F.pad(images, [self.crop] * 4, mode="constant" if self.padding == "zero" else "reflect")

    def _cut_out(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = images.shape
        inside_rows = self._inside(count, height, generator)
        inside_columns = self._inside(count, width, generator)
        return images.masked_fill(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], 0)

    def _inside(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """(count, side) true where a position lies in the square of that image."""
        device = generator.device
        centre = torch.randint(0, side, (count, 1), generator=generator, device=device)
        first = centre - self.cutout // 2
        position = torch.arange(side, device=device)
        return (position >= first) & (position < first + self.cutout)
