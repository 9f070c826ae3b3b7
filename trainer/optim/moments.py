"""What the optimizers here share: checks of settings, the closure of a step, and Adam's moments and step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.lr import ConfigError
from trainer.lr.bounds import fraction, positive


def check_adam(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    """Refuse settings that Adam cannot have."""
    positive("lr", lr, "the learning rate scales each update; try 0.001.")
    for beta in betas:
        check_kept("betas", beta)
    positive("eps", eps, "it keeps the step finite; try 1e-8.")
    check_decay(weight_decay)


def check_kept(name: str, share: float) -> None:
    """Refuse a decay rate of an average outside [0, 1)."""
    if fraction(name, share, "it is the share that is kept from update to update, below 1.") == 1:
        raise ConfigError(f"{name}=1 never forgets: it is the share that is kept from update to update, below 1.")


def check_decay(weight_decay: float) -> None:
    """Refuse a weight decay below zero."""
    if weight_decay:
        positive("weight_decay", weight_decay, "it shrinks the weights; 0 for none.")


def closure_loss(closure: Callable[[], float] | None) -> float | None:
    """The loss that a closure computes, with gradients; None without a closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def with_gradients(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters of `group` that have gradients, and their gradients."""
    params = [parameter for parameter in group["params"] if parameter.grad is not None]
    return params, [parameter.grad for parameter in params]


def adam_steps(optimizer: Optimizer, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The parameters of `group` that have gradients, the gradients, and Adam's step for each, m̂/(√v̂ + ε).

    Kingma & Ba 2014, arXiv:1412.6980.
    """
    params, grads = with_gradients(group)
    if not params:
        return [], [], []
    for parameter in params:
        if not optimizer.state[parameter]:
            optimizer.state[parameter] |= {"mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter)}
    means = [optimizer.state[parameter]["mean"] for parameter in params]
    squares = [optimizer.state[parameter]["square"] for parameter in params]
    group["step"] = t = group.get("step", 0) + 1
    first, second = group["betas"]
    torch._foreach_lerp_(means, grads, 1 - first)
    torch._foreach_mul_(squares, second)
    torch._foreach_addcmul_(squares, grads, grads, 1 - second)
    roots = torch._foreach_div(squares, 1 - second**t)
    torch._foreach_sqrt_(roots)
    torch._foreach_add_(roots, group["eps"])
    steps = torch._foreach_div(means, 1 - first**t)
    torch._foreach_div_(steps, roots)
    return params, grads, list(steps)
