"""Two views of each image should have similar embeddings (SimCLR). Chen et al. 2020, arXiv:2002.05709."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.engine.step import StepOutput


class Encoder(nn.Module):
    def __init__(self, in_features: int, width: int = 128, size: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, size))

    def forward(self, images: Tensor) -> Tensor:
        return functional.normalize(self.layers(images), dim=1)


def view(images: Tensor) -> Tensor:
    """A random shift by up to one pixel for each image, and noise; the generator of torch is seeded by the run."""
    shifts = torch.randint(-1, 2, (len(images), 2)).tolist()
    moved = torch.stack([image.roll(shift, dims=(-2, -1)) for image, shift in zip(images, shifts)])
    return moved + 0.1 * torch.randn_like(moved)


def nt_xent(net: nn.Module, batch: tuple[Tensor, Tensor], *, t: int, temperature: float = 0.2) -> StepOutput:
    """Each view must find the other one of its image among all views of the batch."""
    images, labels = batch
    embedded = net(torch.cat([view(images), view(images)])).float()
    count = len(images)
    similar = embedded @ embedded.T / temperature
    similar = similar.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=similar.device), -torch.inf)
    partner = torch.arange(2 * count, device=similar.device).roll(count)
    loss = functional.cross_entropy(similar, partner)
    nearest = labels.repeat(2)[similar.argmax(1)]
    return StepOutput(
        loss,
        logs={"found": (similar.argmax(1) == partner).float().mean()},
        outputs=functional.one_hot(nearest, 10).float(),
        targets=labels.repeat(2),
    )
