"""Residual networks for small images: the nine layers of DAWNBench, and ResNet-18 with the stem for CIFAR."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DRAWS_FROM_TORCH_ALONE = True
"""So that an update need not seed the generators of numpy and Python."""


class Residual(nn.Module):
    """relu(shortcut(x) + branch(x)), branch = conv-norm-relu-conv-norm.  He et al. 2015, arXiv:1512.03385.

    The shortcut is the identity, or a 1×1 convolution and norm where the shape changes. `zero_gamma` starts
    the last scale of the branch at 0, so that the block starts as its shortcut (Goyal et al. 2017,
    arXiv:1706.02677).
    """

    def __init__(self, channels: int, out: int, stride: int = 1, zero_gamma: bool = False) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            last := nn.BatchNorm2d(out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        if zero_gamma:
            nn.init.zeros_(last.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(self.shortcut(inputs) + self.branch(inputs))


class ResNet9(nn.Module):
    """The net of Page's DAWNBench entry ("How to train your ResNet", 2018): (N, C, ≥8, ≥8) to (N, classes).

    One difference: the ReLU comes after the addition, not before it. With `zero_gamma`, a ReLU at the end of the
    branch would get only zeros and pass no gradient.
    """

    def __init__(self, in_channels: int, classes: int, width: int = 64, zero_gamma: bool = False) -> None:
        super().__init__()
        _refuse_width(width)
        self.features = nn.Sequential(
            _conv(in_channels, width),
            _conv(width, 2 * width, pool=True),
            Residual(2 * width, 2 * width, zero_gamma=zero_gamma),
            _conv(2 * width, 4 * width, pool=True),
            _conv(4 * width, 8 * width, pool=True),
            Residual(8 * width, 8 * width, zero_gamma=zero_gamma),
        )
        self.head = nn.Linear(8 * width, classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return 0.125 * self.head(torch.amax(self.features(images), dim=(2, 3)))

    def stages(self) -> list[list[nn.Module]]:
        """The stem, each convolution or block, and the head."""
        return [[part] for part in (*self.features, self.head)]


class ResNet18(nn.Module):
    """ResNet-18 with a 3×3 stem and no pooling before the blocks: (N, C, H, W) to (N, classes).

    He et al. 2015, arXiv:1512.03385; their initialisation, N(0, 2 / fan_out), for the convolutions.
    """

    def __init__(self, in_channels: int, classes: int, width: int = 64, zero_gamma: bool = False) -> None:
        super().__init__()
        _refuse_width(width)
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            out = width * 2**stage
            blocks += [
                Residual(channels, out, 1 if stage == 0 else 2, zero_gamma),
                Residual(out, out, 1, zero_gamma),
            ]
            channels = out
        self.features = nn.Sequential(_conv(in_channels, width), *blocks)
        self.head = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean(dim=(2, 3)))

    def stages(self) -> list[list[nn.Module]]:
        """The stem, each block, and the head."""
        return [[part] for part in (*self.features, self.head)]


def _conv(channels: int, out: int, pool: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))


def _refuse_width(width: int) -> None:
    if width < 1:
        raise ValueError(f"model.width={width} must be at least 1: it is the number of channels of the first layer.")
