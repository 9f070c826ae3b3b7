"""Lookahead: slow weights that move, every few updates, towards the fast weights of another optimizer.

pytorch_optimizer 4.1.0 has the same formula (thirty updates of a small net in float64 differ by 1.1e-16), but its class
does not work here. Its state_dict is not torch's (no `state`, no `param_groups`). It has no hook before a state is
loaded, which resumed runs need for the configured settings and FSDP for its shards. It has no `found_inf`, by which a
fused base skips an update that is not finite.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.lr import ConfigError
from trainer.lr.bounds import integer, number, positive
from trainer.optim.shards import local

_SINCE = "lookahead_since"
_SLOW = "lookahead_slow"


class Lookahead(Optimizer):
    """After each `k` updates of `base`: slow ← slow + alpha (fast - slow), fast ← slow.

    Parameter groups and state are shared with `base`, which is made from the same `params`, `lr` and `weight_decay`.
    The state also holds the slow weights.
    Zhang et al. 2019, arXiv:1907.08610.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: Callable[..., Optimizer],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        k: int = 5,
        alpha: float = 0.5,
    ) -> None:
        self.k = integer("optimizer.k", k, "it is the updates between two of the slow weights; try 5.")
        self.alpha = positive("optimizer.alpha", alpha, "it is the step of the slow weights, up to 1; try 0.5.")
        number("optimizer.alpha", alpha, "it is the step of the slow weights, up to 1; try 0.5.", high=1.0)
        self.base = base(params, lr=lr, weight_decay=weight_decay)
        if hasattr(self.base, "train") or hasattr(self.base, "parts"):
            kind = type(self.base).__name__
            raise ConfigError(f"optimizer.base: {kind} averages its weights or combines optimizers: take another.")
        super().__init__([{"params": group["params"]} for group in self.base.param_groups], self.base.defaults)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step the base; after each k-th step, move the slow weights and copy them to the fast ones."""
        fresh = [
            parameter
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and _SLOW not in self.state.get(parameter, {})
        ]
        slow = [parameter.clone() for parameter in fresh]
        loss = self.base.step(closure)
        for parameter, weights in zip(fresh, slow):
            self.state[parameter][_SLOW] = weights
        for group in self.param_groups:
            group[_SINCE] = (group.get(_SINCE, 0) + 1) % self.k
            if not group[_SINCE]:
                self._follow([parameter for parameter in group["params"] if _SLOW in self.state.get(parameter, {})])
        return loss

    def _follow(self, fast: list[Tensor]) -> None:
        if fast:
            slow = [self.state[parameter][_SLOW] for parameter in fast]
            torch._foreach_lerp_(slow, fast, self.alpha)
            torch._foreach_copy_(list(map(local, fast)), list(map(local, slow)))

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self._share()

    def register_load_state_dict_pre_hook(self, hook: Any, prepend: bool = False) -> Any:
        """The base calls the hook with its own state."""
        return self.base.register_load_state_dict_pre_hook(hook, prepend)

    @property
    def found_inf(self) -> Tensor | None:
        """1 where an update is not finite: a fused base then skips it."""
        return getattr(self.base, "found_inf", None)

    @found_inf.setter
    def found_inf(self, value: Tensor) -> None:
        self.base.found_inf = value  # type: ignore[attr-defined]
