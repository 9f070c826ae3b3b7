"""Several optimizers as one: each steps its own parameter groups, with one state dict for all."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from trainer.optim.groups import Group, Make
from trainer.optim.moments import closure_loss
from trainer.optim.policy_groups import read_setting, write_setting


class Composite(Optimizer):
    """Steps `parts`, each an optimizer of its own for some of the groups; its `param_groups` are theirs, in order.

    The groups are shared, not copied: a rate written into them reaches the optimizer that steps them. `state_dict`
    holds those of the parts.
    """

    def __init__(self, parts: Sequence[Optimizer], order: Sequence[tuple[int, int]]) -> None:
        """`order` gives for each group, in the order of this optimizer, the part that has it and its index there."""
        self.parts, self.order = list(parts), list(order)
        groups = [self.parts[i].param_groups[j] for i, j in self.order]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.param_groups = groups

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Step each part; a closure is evaluated once, before them."""
        loss = closure_loss(closure)
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        states = [part.state_dict() for part in self.parts]
        return {"parts": states, "param_groups": [states[i]["param_groups"][j] for i, j in self.order]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [self.parts[i].param_groups[j] for i, j in self.order]

    def register_load_state_dict_pre_hook(self, hook: Any, prepend: bool = False) -> Any:
        """Each part calls the hook with its own state."""
        handles = [part.register_load_state_dict_pre_hook(hook, prepend) for part in self.parts]
        return handles[0]

    @property
    def found_inf(self) -> Tensor | None:
        """1 where an update is not finite: fused parts then skip it."""
        return getattr(self.parts[0], "found_inf", None)

    @found_inf.setter
    def found_inf(self, value: Tensor) -> None:
        for part in self.parts:
            part.found_inf = value  # type: ignore[attr-defined]

    def train(self) -> None:
        """Switch parts that average their weights to the weights for training."""
        for part in self.parts:
            if hasattr(part, "train"):
                part.train()

    def eval(self) -> None:
        """Switch parts that average their weights to the weights for evaluation."""
        for part in self.parts:
            if hasattr(part, "eval"):
                part.eval()


def assembled(groups: Sequence[Group], main: Make) -> Optimizer:
    """The optimizer of `groups`: `main` steps those without one of their own; a `Composite` where there are several."""
    makers: list[Make] = []
    for group in groups:
        if (maker := group.optimizer or main) not in makers:
            makers.append(maker)
    if len(makers) == 1:
        return makers[0]([group.options() for group in groups])
    members = [[group for group in groups if (group.optimizer or main) is maker] for maker in makers]
    parts = [maker([group.options() for group in owned]) for maker, owned in zip(makers, members)]
    order = []
    for group in groups:
        i = next(i for i, owned in enumerate(members) if group in owned)
        order.append((i, next(j for j, other in enumerate(members[i]) if other is group)))
    return Composite(parts, order)


def keep_configured(optimizer: Optimizer, state: dict[str, Any], scheduled: Collection[str] = ()) -> dict[str, Any]:
    """The state of a checkpoint with the settings of `optimizer` as configured now, for a resumed run.

    The rate and the `scheduled` settings stay as last applied: callbacks may read them before the next update.
    """
    settings = (inspect.signature(type(optimizer)).parameters.keys() | {"name"}) - {"lr"}
    groups = [
        {key: now[key] if key in settings and key in now else value for key, value in saved.items()}
        for saved, now in zip(state["param_groups"], optimizer.state_dict()["param_groups"], strict=True)
    ]
    for saved, group in zip(state["param_groups"], groups):
        for name in scheduled:
            write_setting(group, name, read_setting(saved, name))
    return {**state, "param_groups": groups}
