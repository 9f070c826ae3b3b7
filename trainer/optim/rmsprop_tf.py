"""RMSprop as TensorFlow has it.

torch's, which pytorch_optimizer offers too, is another formula: after ten steps of tests/optim/test_formulas.py with
the same settings, in which weights move by up to 2.6, it is up to 4.5 away.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.lr.bounds import positive
from trainer.optim.moments import check_decay, check_kept, closure_loss, with_gradients


class RMSpropTF(Optimizer):
    """v ← αv + (1-α)g², b ← μb + ηg/√(v + ε), x ← x - b, with v = 1 at the start.

    `centered` subtracts the square of the mean gradient from v under the root. Weight decay is added to the gradient.
    torch has ε outside the root, η outside b, and v = 0 at the start, so settings from TensorFlow do not transfer.
    Source: Tieleman & Hinton 2012, Coursera lecture 6.5, in the form of tf.compat.v1.train.RMSPropOptimizer.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.016,
        alpha: float = 0.9,
        eps: float = 1e-3,
        momentum: float = 0.9,
        centered: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        positive("lr", lr, "the learning rate scales each update; try 0.016.")
        check_kept("alpha", alpha)
        positive("eps", eps, "it keeps the step finite; try 1e-3.")
        check_kept("momentum", momentum)
        check_decay(weight_decay)
        settings = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "centered": centered}
        super().__init__(params, {**settings, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure_loss(closure)
        for group in self.param_groups:
            self._step(group, *with_gradients(group))
        return loss

    def _step(self, group: dict[str, Any], params: list[Tensor], grads: Any) -> None:
        if not params:
            return
        for parameter in params:
            if not self.state[parameter]:
                self.state[parameter] |= {"square": torch.ones_like(parameter), "buffer": torch.zeros_like(parameter)}
                if group["centered"]:
                    self.state[parameter]["mean"] = torch.zeros_like(parameter)
        squares, buffers = ([self.state[p][name] for p in params] for name in ("square", "buffer"))
        if group["weight_decay"]:
            grads = torch._foreach_add(grads, params, alpha=group["weight_decay"])
        keep = group["alpha"]
        torch._foreach_mul_(squares, keep)
        torch._foreach_addcmul_(squares, grads, grads, 1 - keep)
        roots = torch._foreach_add(squares, group["eps"])
        if group["centered"]:
            means = [self.state[parameter]["mean"] for parameter in params]
            torch._foreach_lerp_(means, grads, 1 - keep)
            torch._foreach_addcmul_(roots, means, means, -1.0)
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_addcdiv_(buffers, grads, roots, group["lr"])
        torch._foreach_sub_(params, buffers)
