"""A generative adversarial network for points on a circle. Goodfellow et al. 2014, arXiv:1406.2661."""

import math

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import TensorDataset


def circle(count: int, seed: int) -> TensorDataset:
    """Points near the circle of radius 1."""
    draw = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(count, generator=draw)
    points = torch.stack([angle.cos(), angle.sin()], 1)
    return TensorDataset(points + 0.05 * torch.randn(count, 2, generator=draw))


def layers(inputs: int, outputs: int, width: int = 64) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, outputs),
    )


class GAN(pl.LightningModule):
    def __init__(self, noise: int = 4) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = layers(noise, 2), layers(2, 1)
        self.noise = noise

    def forward(self, count: int) -> Tensor:
        return self.generator(torch.randn(count, self.noise, device=self.device))

    def training_step(self, batch, batch_idx):
        (real,) = batch
        generator, critic = self.optimizers()
        made = self(len(real))
        found_out = softplus(-self.critic(real)).mean() + softplus(self.critic(made.detach())).mean()
        critic.zero_grad()
        self.manual_backward(found_out)
        critic.step()
        failed = softplus(-self.critic(made)).mean()
        generator.zero_grad()
        self.manual_backward(failed)
        generator.step()
        self.log_dict({"critic": found_out, "generator": failed})

    def validation_step(self, batch, batch_idx):
        (real,) = batch
        made = self(len(real))
        between = torch.cdist(real, made).mean()
        self.log("val_distance", 2 * between - torch.cdist(real, real).mean() - torch.cdist(made, made).mean())

    def configure_optimizers(self):
        return [torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.99)) for net in (self.generator, self.critic)]
