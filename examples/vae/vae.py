"""A variational autoencoder. Kingma & Welling 2013, arXiv:1312.6114."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.engine.step import StepOutput


class VAE(nn.Module):
    def __init__(self, in_features: int, latent: int = 8, width: int = 128) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, 2 * latent)
        )
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, in_features))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        sample = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        return self.decoder(sample), mean, log_variance


def elbo(net: nn.Module, batch: tuple[Tensor, Tensor], *, t: int, beta: float = 1.0) -> StepOutput:
    """The negative evidence lower bound of an image: the cross entropy of its pixels + beta · KL."""
    images, _ = batch
    pixels, mean, log_variance = net(images)
    error = functional.binary_cross_entropy_with_logits(pixels, images.flatten(1), reduction="none").sum(1).mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    return StepOutput(error + beta * divergence, logs={"reconstruction": error, "kl": divergence})
