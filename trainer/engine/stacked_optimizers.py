"""Optimizers of stacked nets: the same elementwise rule for every net, with settings of its own for each.

A call takes a step in place. Weights, gradients and states are (K, P): a row for each of K nets. Settings, and the
learning rates of this update, are columns (K, 1).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

Settings = Mapping[str, Any]
"""A parameter group of an optimizer, as torch.optim has it."""


class StackedSGD:
    """torch.optim.SGD: g ← g + λw; b ← μb + (1 - d)g, at first b ← g; w ← w - η(g + μb) with Nesterov, else w - ηb."""

    def __init__(self, settings: Sequence[Settings], like: Tensor) -> None:
        self.decay = column(settings, "weight_decay", like)
        self.momentum, dampening = column(settings, "momentum", like), column(settings, "dampening", like)
        self.share, self.nesterov = 1 - dampening, bool(settings[0]["nesterov"])
        self.buffer: Tensor | None = None
        self.decays, self.remembers = bool(self.decay.any()), bool(self.momentum.any())

    def __call__(self, weights: Tensor, gradients: Tensor, rates: Tensor) -> None:
        if self.decays:
            gradients = gradients.addcmul(weights, self.decay)
        if self.remembers:
            if self.buffer is None:
                self.buffer = gradients.clone()
            else:
                self.buffer.mul_(self.momentum).addcmul_(gradients, self.share)
            gradients = gradients.addcmul(self.buffer, self.momentum) if self.nesterov else self.buffer
        weights.addcmul_(gradients, rates, value=-1)

    def states(self) -> dict[str, Tensor]:
        return {} if self.buffer is None else {"momentum_buffer": self.buffer}


class StackedAdam:
    """torch.optim.Adam and AdamW: m and v are the running means of g and g², w ← w - η m̂ / (√v̂ + ε).

    Adam adds λw to g before, AdamW multiplies w by 1 - ηλ. Kingma & Ba 2014, arXiv:1412.6980; Loshchilov & Hutter 2017,
    arXiv:1711.05101.
    """

    def __init__(self, settings: Sequence[Settings], like: Tensor) -> None:
        self.decay, self.epsilon = column(settings, "weight_decay", like), column(settings, "eps", like)
        first, second = ([float(one["betas"][i]) for one in settings] for i in (0, 1))
        self.wide = [torch.tensor(betas, dtype=torch.float64, device=like.device)[:, None] for betas in (first, second)]
        self.beta1, self.beta2 = (betas.to(like.dtype) for betas in self.wide)
        self.share1, self.share2 = ((1 - betas).to(like.dtype) for betas in self.wide)
        self.decoupled = bool(settings[0].get("decoupled_weight_decay"))
        self.decays, self.updates = bool(self.decay.any()), 0
        self.mean, self.square = torch.zeros_like(like), torch.zeros_like(like)

    def __call__(self, weights: Tensor, gradients: Tensor, rates: Tensor) -> None:
        self.updates += 1
        if self.decays and self.decoupled:
            weights.mul_(1 - rates * self.decay)
        elif self.decays:
            gradients = gradients.addcmul(weights, self.decay)
        self.mean.lerp_(gradients, self.share1.expand_as(gradients))
        self.square.mul_(self.beta2).addcmul_(gradients * self.share2, gradients)
        debias1, debias2 = ((1 - betas**self.updates) for betas in self.wide)
        root = self.square.sqrt().div_(debias2.sqrt().to(weights.dtype)).add_(self.epsilon)
        weights.addcdiv_(self.mean * (rates / debias1.to(weights.dtype)), root, value=-1)

    def states(self) -> dict[str, Tensor]:
        return {"exp_avg": self.mean, "exp_avg_sq": self.square}


RULES: dict[type[Optimizer], type[StackedSGD] | type[StackedAdam]] = {
    SGD: StackedSGD,
    Adam: StackedAdam,
    AdamW: StackedAdam,
}
SAME = ("nesterov", "amsgrad", "maximize", "decoupled_weight_decay")
"""Settings that must be equal in all nets of a stack."""


def column(settings: Sequence[Settings], name: str, like: Tensor) -> Tensor:
    """A setting of every net, (K, 1)."""
    return torch.tensor([float(one[name]) for one in settings], dtype=like.dtype, device=like.device)[:, None]


def state_of(group: Settings, rows: dict[str, Tensor], updates: int, parameter: Tensor) -> dict[str, Any]:
    """The state of a parameter as its own optimizer has it after `updates` updates. `rows`: its part of the states."""
    if "betas" not in group:
        return rows if group["momentum"] else {}
    on_device = group.get("fused") or group.get("capturable")
    dtype = torch.float32 if group.get("fused") else torch.get_default_dtype()
    step = torch.tensor(float(updates), dtype=dtype, device=parameter.device if on_device else "cpu")
    return {"step": step, **rows}


def why_no_rule(optimizers: Sequence[Optimizer]) -> str:
    """Why these optimizers have no common stacked rule; empty where they have one."""
    kinds = {type(one) for one in optimizers}
    if len(kinds) > 1 or (kind := kinds.pop()) not in RULES:
        return f"optimizer {type(optimizers[0]).__name__} has no stacked rule: SGD, Adam and AdamW have"
    for groups in zip(*(one.param_groups for one in optimizers)):
        if any(len({bool(group.get(name)) for group in groups}) > 1 for name in SAME):
            return f"the runs differ in a switch of {kind.__name__}"
        if groups[0].get("amsgrad") or groups[0].get("maximize"):
            return f"{kind.__name__} with amsgrad or maximize has no stacked rule"
        if any(group.get("dampening") for group in groups) and not all(group["momentum"] for group in groups):
            return "dampening needs momentum in every run of a stack"
    return ""
