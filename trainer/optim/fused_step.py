"""A step of a fused Adam or AdamW without the walk over groups and state that torch makes in Python in each step."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim import optimizer as hooks_of_all


@dataclass(frozen=True)
class _Group:
    """The tensors of a group, as torch's kernel takes them."""

    parameters: list[nn.Parameter]
    states: list[dict[str, Tensor]]
    kernel: Callable[..., Any]

    @classmethod
    def of(cls, optimizer: Optimizer, group: dict[str, Any]) -> "_Group | None":
        """None where the kernel cannot take all tensors of the group at once."""
        if not _asked(group):  # first: torch makes such a step each time, and the rest walks over all parameters
            return None
        parameters = list(group["params"])
        states = [optimizer.state.get(parameter) or {} for parameter in parameters]
        plain = all(type(parameter) is nn.Parameter for parameter in parameters)
        one_kind = len({(parameter.device, parameter.dtype) for parameter in parameters}) == 1
        if not (plain and one_kind and all(states)) or parameters[0].is_complex():
            return None
        kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
        return cls(parameters, states, kernel)

    def is_of(self, group: dict[str, Any]) -> bool:
        """Whether the group still has these parameters, and asks for this kernel."""
        given = group["params"]
        return _asked(group) and len(given) == len(self.parameters) and all(map(is_, given, self.parameters))


class FusedStep:
    """`optimizer.step()` with the same hooks, kernel and bits, in less time; call it in place of `step`.

    torch's own step is called where the optimizer is not a fused Adam or AdamW, has no state yet or another one than in
    the step before, where a gradient is missing or sparse, and under torch's profiler, which looks for its name. The
    settings of a group are read in each step, as torch reads them: after the hooks, right before the kernel.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._groups: list[_Group] = []
        self._state: object = None
        self._states: list[dict[str, Tensor]] = []

    def __call__(self) -> None:
        optimizer = self.optimizer
        if not self._same() or torch.autograd._profiler_enabled():
            optimizer.step()
            self._prepare()
            return
        self._call(hooks_of_all._global_optimizer_pre_hooks, optimizer._optimizer_step_pre_hooks)
        self._step()
        self._call(optimizer._optimizer_step_post_hooks, hooks_of_all._global_optimizer_post_hooks)

    def _prepare(self) -> None:
        """Take the tensors of an optimizer that has made a step; nothing where torch must make each."""
        optimizer, self._state = self.optimizer, None
        if type(optimizer) not in (Adam, AdamW):
            return
        found = [_Group.of(optimizer, group) for group in optimizer.param_groups]
        self._groups = [group for group in found if group is not None]
        if len(self._groups) == len(found):
            self._state, self._states = optimizer.state, list(optimizer.state.values())

    def _same(self) -> bool:
        """Whether step, state, groups and parameters of the optimizer are those that were taken."""
        optimizer = self.optimizer
        state, groups = optimizer.state, optimizer.param_groups
        return (
            state is self._state
            and len(state) == len(self._states)
            and all(map(is_, state.values(), self._states))
            and len(groups) == len(self._groups)
            and all(own.is_of(group) for group, own in zip(groups, self._groups))
            and "step" not in vars(optimizer)
            and getattr(optimizer, "grad_scale", None) is None
        )

    def _step(self) -> None:
        gradients = [[parameter.grad for parameter in group.parameters] for group in self._groups]
        if any(gradient is None or gradient.is_sparse for own in gradients for gradient in own):
            type(self.optimizer).step.__wrapped__(self.optimizer)  # type: ignore[attr-defined]  # without the hooks
            return
        found_inf: Tensor | None = getattr(self.optimizer, "found_inf", None)
        with torch.no_grad():
            for group, own, settings in zip(self._groups, gradients, self.optimizer.param_groups, strict=True):
                _step(group, own, settings, found_inf)

    def _call(self, *hooks: dict[int, Callable[..., Any]]) -> None:
        for hook in chain(*(one.values() for one in hooks)):
            if hook(self.optimizer, (self.optimizer,), {}) is not None:
                raise RuntimeError(f"{hook} changes the arguments of the optimizer's step, which has none.")


def _asked(group: dict[str, Any]) -> bool:
    return bool(group["fused"]) and not (group["amsgrad"] or group["capturable"] or group["differentiable"])


def _step(group: _Group, gradients: list[Tensor | None], settings: dict[str, Any], found_inf: Tensor | None) -> None:
    beta1, beta2 = settings["betas"]
    averages, squares, steps = ([one[name] for one in group.states] for name in ("exp_avg", "exp_avg_sq", "step"))
    torch._foreach_add_(steps, 1)
    group.kernel(
        group.parameters,
        gradients,
        averages,
        squares,
        [],
        steps,
        amsgrad=False,
        lr=settings["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=settings["weight_decay"],
        eps=settings["eps"],
        maximize=settings["maximize"],
        grad_scale=None,
        found_inf=found_inf,
    )
    if found_inf is not None:
        torch._foreach_sub_(steps, [found_inf] * len(steps))
