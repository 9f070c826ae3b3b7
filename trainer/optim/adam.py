"""Relatives of Adam that no library has in this form.

LAMB: that of pytorch_optimizer 4.1.0 follows an early version of the paper. It does not correct the bias of the
moments, scales biases too, and adds ε to the norm of the step. In ten steps of tests/optim/test_formulas.py, in which
weights move by up to 0.64, it ends up to 2.4 away from algorithm 2 with weight_decouple=False, 0.89 with
adam_debias=True.

Cautious AdamW: pytorch_optimizer has the mask as an option of other optimizers, such as Lion and LaProp, but its AdamW
is torch's, which has no mask.

ADOPT: that of pytorch_optimizer 4.1.0 counts its first call, which moves no weight, as an update. So it clips update t
at (t + 1)^¼, where the paper has t^¼, and the weight decay of the first call does move the weights.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.lr.bounds import positive
from trainer.optim.moments import adam_steps, check_adam, closure_loss, with_gradients


class ADOPT(Optimizer):
    """m ← β₁m + (1-β₁) clip(g / max(√v, ε), ±t^¼), x ← x - η(m + λx), then v ← β₂v + (1-β₂) g².

    The first call only sets v to g² and moves no weight; t = 1, 2, … counts those after it. Without `weight_decouple`,
    λx is added to g instead. Source: Taniguchi et al. 2024, arXiv:2411.02853, algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        weight_decouple: bool = True,
    ) -> None:
        check_adam(lr, betas, eps, weight_decay)
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, settings | {"weight_decouple": weight_decouple})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure_loss(closure)
        for group in self.param_groups:
            params, grads = with_gradients(group)
            group["step"] = t = group.get("step", -1) + bool(params)
            decay, decoupled, (first, second) = group["weight_decay"], group["weight_decouple"], group["betas"]
            if decay and not decoupled:
                grads = [grad.add(parameter, alpha=decay) for parameter, grad in zip(params, grads)]
            known = [(parameter, grad) for parameter, grad in zip(params, grads) if self.state[parameter]]
            for parameter, grad in zip(params, grads):
                if not self.state[parameter]:
                    self.state[parameter] |= {"mean": torch.zeros_like(parameter), "square": grad.square()}
            if known:
                params, grads = [parameter for parameter, _ in known], [grad for _, grad in known]
                means = [self.state[parameter]["mean"] for parameter in params]
                squares = [self.state[parameter]["square"] for parameter in params]
                torch._foreach_lerp_(means, _bounded(grads, squares, group["eps"], t**0.25), 1 - first)
                torch._foreach_mul_(params, 1 - group["lr"] * decay * decoupled)
                torch._foreach_add_(params, means, alpha=-group["lr"])
                torch._foreach_mul_(squares, second)
                torch._foreach_addcmul_(squares, grads, grads, 1 - second)
        return loss


def _bounded(grads: list[Tensor], squares: list[Tensor], eps: float, limit: float) -> list[Tensor]:
    """g / max(√v, ε), between ±`limit`."""
    roots = torch._foreach_sqrt(squares)
    torch._foreach_clamp_min_(roots, eps)
    ratios = list(torch._foreach_div(grads, roots))
    torch._foreach_clamp_min_(ratios, -limit)
    torch._foreach_clamp_max_(ratios, limit)
    return ratios


class CautiousAdamW(Optimizer):
    """x ← (1 - ηλ)x - η·n/(k+1)·[u∘g > 0]∘u, u Adam's step; u∘g > 0 in k of a parameter's n entries.

    Source: Liang et al. 2024, arXiv:2411.16085.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        check_adam(lr, betas, eps, weight_decay)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure_loss(closure)
        for group in self.param_groups:
            lr = group["lr"]
            for parameter, grad, step in zip(*adam_steps(self, group)):
                agree = (step * grad > 0).to(step.dtype)
                step.mul_(agree).mul_(agree.numel() / (agree.sum() + 1))
                if group["weight_decay"]:
                    parameter.mul_(1 - lr * group["weight_decay"])
                parameter.sub_(step, alpha=lr)
        return loss


class LAMB(Optimizer):
    """x ← x - η·min(‖x‖, largest)/‖u‖·u with u = m̂/(√v̂ + ε) + λx, for each matrix x of its own.

    Biases and the parameters of norms are stepped by η·u. Source: You et al. 2019, arXiv:1904.00962, algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        largest: float = 10.0,
        weight_decay: float = 0.01,
    ) -> None:
        check_adam(lr, betas, eps, weight_decay)
        positive("largest", largest, "it is the largest norm of a layer that counts.")
        settings = {"lr": lr, "betas": betas, "eps": eps, "largest": largest, "weight_decay": weight_decay}
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure_loss(closure)
        for group in self.param_groups:
            params, _, steps = adam_steps(self, group)
            if not params:
                continue
            if group["weight_decay"]:
                torch._foreach_add_(steps, params, alpha=group["weight_decay"])
            for parameter, step, size, length in zip(
                params, steps, torch._foreach_norm(params), torch._foreach_norm(steps)
            ):
                if parameter.ndim > 1:
                    ratio = size.clamp(max=group["largest"]) / length
                    step.mul_(torch.where((size > 0) & (length > 0), ratio, 1.0))
                parameter.sub_(step, alpha=group["lr"])
        return loss
