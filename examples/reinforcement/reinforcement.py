"""A pole on a cart that learns to stand. Williams 1992, doi:10.1007/BF00992696 (REINFORCE)."""

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from trainer.engine.step import StepOutput


def starts(count: int, seed: int) -> TensorDataset:
    """States in which episodes begin: place and speed of the cart, angle and turn of the pole."""
    return TensorDataset(torch.rand(count, 4, generator=torch.Generator().manual_seed(seed)) / 10 - 0.05)


def push(states: Tensor, right: Tensor) -> Tensor:
    """The states 0.02 s later, after a push to one side (Barto, Sutton & Anderson 1983)."""
    place, speed, angle, turn = states.unbind(1)
    sin, cos = angle.sin(), angle.cos()
    force = (20.0 * right - 10.0 + 0.05 * turn**2 * sin) / 1.1
    turning = (9.8 * sin - cos * force) / (2 / 3 - 0.05 * cos**2 / 1.1)
    return states + 0.02 * torch.stack([speed, force - 0.05 * turning * cos / 1.1, turn, turning], 1)


def stands(states: Tensor) -> Tensor:
    """Whether the pole stands, and the cart is near the middle."""
    return (states[:, 0].abs() < 2.4) & (states[:, 2].abs() < 0.21)


def policy(width: int = 32) -> nn.Sequential:
    """A net that gives the logit of a push to the right."""
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1), nn.Flatten(0))


@torch.no_grad()
def play(net: nn.Module, states: Tensor, steps: int, explore: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The states, pushes and whether the pole stood of each step, all (steps, episodes)."""
    seen, pushes, stood = [], [], []
    up = stands(states)
    for _ in range(steps):
        chance = net(states).sigmoid()
        right = torch.bernoulli(chance) if explore else chance.round()
        seen.append(states)
        pushes.append(right)
        states = push(states, right)
        up = up & stands(states)
        stood.append(up)
    return torch.stack(seen), torch.stack(pushes), torch.stack(stood)


def reinforce(net: nn.Module, batch: tuple[Tensor], *, t: int, steps: int = 100, discount: float = 0.95) -> StepOutput:
    """Play an episode from each state; raise the chance of pushes after which the pole stands longer than elsewhere."""
    seen, pushes, stood = play(net, batch[0], steps, explore=net.training)
    gains = stood.float()
    for i in reversed(range(steps - 1)):
        gains[i] += discount * gains[i + 1]
    better = gains - gains.mean(1, keepdim=True)
    logits = net(seen.flatten(0, 1)).view_as(pushes)
    chance = -nn.functional.binary_cross_entropy_with_logits(logits, pushes, reduction="none")
    time = stood.sum(0).float()
    return StepOutput(-(chance * better * stood).sum(0).mean() / steps, logs={"steps": time.mean()}, outputs=time)
