"""Relatives of SGD: full-batch gradient descent, and DoG and DoWG, whose rate follows the distance from the start.

Neither torch nor pytorch_optimizer 4.1.0 has DoG or DoWG.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from trainer.lr.bounds import positive
from trainer.optim.moments import check_decay, closure_loss

Unit = list[tuple[dict[str, Any], Tensor]]
"""The parameters that share a distance, each with its group."""


class GradientDescent(SGD):
    """w ← w - η g with g the gradient over the whole training set: torch's SGD, which a run refuses on smaller batches.

    Cauchy 1847.
    """


class DoG(Optimizer):
    """x ← x - η·r/√(G + ε)·g, where r = max ‖x(i) - x(0)‖ and G = Σ ‖g(i)‖² over the updates i up to this one.

    r is at least `first`·(1 + ‖x(0)‖). All parameters share r and G, or each has its own where `layerwise`. η is 1
    unless a schedule says otherwise; weight decay takes that rate too. Source: Ivgi et al. 2023, arXiv:2302.12022.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1.0,
        first: float = 1e-6,
        layerwise: bool = False,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        positive("lr", lr, "it multiplies the rate of the formula; take 1.")
        positive("first", first, "it is the distance before the first update; try 1e-6.")
        positive("eps", eps, "it keeps the rate finite; try 1e-8.")
        check_decay(weight_decay)
        self.layerwise = layerwise
        super().__init__(params, {"lr": lr, "first": first, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure_loss(closure)
        members: Unit = [(group, parameter) for group in self.param_groups for parameter in group["params"]]
        for unit in [[member] for member in members] if self.layerwise else [members]:
            self._step(unit)
        return loss

    def _step(self, unit: Unit) -> None:
        """Step the parameters that share a distance; the first of them keeps it."""
        params = [parameter for _, parameter in unit]
        settings, state = unit[0][0], self.state[params[0]]
        if "start" not in state:
            for parameter in params:
                self.state[parameter]["start"] = parameter.detach().clone()
            state["distance"] = settings["first"] * (1 + _norm(params))
            state["gradients"] = torch.zeros_like(state["distance"])
        grads = [parameter.grad for parameter in params if parameter.grad is not None]
        if not grads:
            return
        moved = torch._foreach_sub(params, [self.state[parameter]["start"] for parameter in params])
        torch.maximum(state["distance"], _norm(moved), out=state["distance"])
        rate = self._rate(state, _norm(grads).square(), settings["eps"])
        for group, parameter in unit:
            if parameter.grad is not None:
                step = rate * group["lr"]
                if group["weight_decay"]:
                    parameter.mul_(1 - step * group["weight_decay"])
                parameter.sub_(parameter.grad * step)

    def _rate(self, state: dict[str, Tensor], square: Tensor, eps: float) -> Tensor:
        state["gradients"].add_(square)
        return state["distance"] / (state["gradients"] + eps).sqrt()


class DoWG(DoG):
    """DoG with the rate r²/√(V + εr²), V = Σ r(i)²·‖g(i)‖²: early gradients, taken near the start, count less.

    Source: Khaled et al. 2023, arXiv:2305.16284.
    """

    def _rate(self, state: dict[str, Tensor], square: Tensor, eps: float) -> Tensor:
        reach = state["distance"].square()
        state["gradients"].addcmul_(reach, square)
        return reach / (state["gradients"] + eps * reach).sqrt()


def _norm(tensors: Any) -> Tensor:
    """The norm of all tensors together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
