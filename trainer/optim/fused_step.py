"""A step of a fused Adam, AdamW or SGD without the walk over groups and state that torch makes in each step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import is_
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim import optimizer as hooks_of_all

from trainer.optim.no_grad import NoGrad
from trainer.optim.shards import is_sharded, local

Parameters = list[nn.Parameter]
Gradients = list[Tensor | None]
Settings = dict[str, Any]
Made = TypeVar("Made")
_ONE = torch.tensor(1.0, device="cpu")
_FLAGS = "fused", "amsgrad", "capturable", "differentiable"
"""The settings of a group that choose how a step is computed: torch's kernel takes the first without the others."""


@dataclass(frozen=True)
class _Group:
    """The tensors of a group, as torch's kernel takes them; of `sharded` ones it takes the shards of this process."""

    parameters: Parameters
    states: list[dict[str, Tensor]]
    sharded: bool = False

    @classmethod
    def of(cls, optimizer: Optimizer, group: Settings) -> "_Group | None":
        """None where the kernel cannot take all tensors of the group at once."""
        if not _asked(group):  # first: torch makes such a step each time, and the rest walks over all parameters
            return None
        parameters = list(group["params"])
        states = [optimizer.state.get(parameter) or {} for parameter in parameters]
        sharded = all(map(is_sharded, parameters))
        plain = sharded or all(type(parameter) is nn.Parameter for parameter in parameters)
        one_kind = len({(parameter.device, parameter.dtype) for parameter in parameters}) == 1
        whole = not any(value is None for state in states for value in state.values())
        if not (plain and one_kind and whole) or parameters[0].is_complex():
            return None
        return cls(parameters, states, sharded)

    def tensors(self, names: Sequence[str]) -> list[list[Tensor]] | None:
        """The state of each name, in the order of the parameters; None where a parameter has none yet."""
        try:
            return [[state[name] for state in self.states] for name in names]
        except KeyError:
            return None


class FusedStep:
    """`optimizer.step()` with the same hooks, kernel and bits, in less time; call it in place of `step`.

    torch's own step is called where the optimizer is not a fused Adam, AdamW or SGD, has no state yet or another one
    than in the step before, where a gradient is missing or sparse, and under torch's profiler, which looks for its
    name. The settings of a group are read in each step, as torch reads them: after the hooks, right before the kernel.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._groups: list[_Group] = []
        self._taken: list[object] = []

    def __call__(self) -> None:
        optimizer = self.optimizer
        if not self._same() or torch.autograd._profiler_enabled():
            optimizer.step()
            self._prepare()
            return
        self.between_hooks(self._step)

    def between_hooks(self, step: Callable[[], Made]) -> Made:
        """Call `step` between the hooks of the optimizer, and give what it returns."""
        self._call(hooks_of_all._global_optimizer_pre_hooks, self.optimizer._optimizer_step_pre_hooks)
        made = step()
        self._call(self.optimizer._optimizer_step_post_hooks, hooks_of_all._global_optimizer_post_hooks)
        return made

    def _prepare(self) -> None:
        """Take the tensors of an optimizer that has made a step; nothing where torch must make each."""
        self._taken = []
        if type(self.optimizer) not in _KINDS:
            return
        found = [_Group.of(self.optimizer, group) for group in self.optimizer.param_groups]
        self._groups = [group for group in found if group is not None]
        if len(self._groups) == len(found):
            self._taken = self._seen()

    def _seen(self) -> list[object]:
        """The state, parameters and flags of the optimizer, which decide what its kernel takes."""
        seen = [self.optimizer.state, *self.optimizer.state.values()]
        for group in self.optimizer.param_groups:
            seen += group["params"]
            seen += map(group.get, _FLAGS)
        return seen

    def _same(self) -> bool:
        """Whether step, state, groups and parameters of the optimizer are those that were taken."""
        seen = self._seen() if self._taken else []
        return (
            len(seen) == len(self._taken) > 0
            and all(map(is_, seen, self._taken))
            and "step" not in vars(self.optimizer)
            and getattr(self.optimizer, "grad_scale", None) is None
        )

    def _step(self) -> None:
        optimizer = self.optimizer
        names, kernel = _KINDS[type(optimizer)]
        found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
        work = []
        for group, settings in zip(self._groups, optimizer.param_groups, strict=True):
            gradients = [parameter.grad for parameter in group.parameters]
            state = group.tensors(names(settings))
            if state is None or any(gradient is None or gradient.is_sparse for gradient in gradients):
                type(optimizer).step.__wrapped__(optimizer)  # type: ignore[attr-defined]  # without the hooks
                return
            work.append((group, gradients, state, settings))
        with NoGrad():
            for group, gradients, state, settings in work:
                taken: list[Any] = [group.parameters, gradients, *state]
                if group.sharded:
                    taken = [[*map(local, tensors)] for tensors in taken]
                kernel(*taken[:2], taken[2:], settings, found_inf)

    def _call(self, *hooks: dict[int, Callable[..., Any]]) -> None:
        for hook in chain(*(one.values() for one in hooks)):
            if hook(self.optimizer, (self.optimizer,), {}) is not None:
                raise RuntimeError(f"{hook} changes the arguments of the optimizer's step, which has none.")


def _asked(group: Settings) -> bool:
    fused, *others = map(group.get, _FLAGS)
    return bool(fused) and not any(others)


def _adam_names(settings: Settings) -> tuple[str, ...]:
    return "exp_avg", "exp_avg_sq", "step"


def _adam(
    parameters: Parameters,
    gradients: Gradients,
    state: list[list[Tensor]],
    settings: Settings,
    found_inf: Tensor | None,
) -> None:
    averages, squares, steps = state
    beta1, beta2 = settings["betas"]
    _count(steps)
    kernel: Callable[..., Any] = torch._fused_adamw_ if settings["decoupled_weight_decay"] else torch._fused_adam_
    kernel(
        parameters,
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


def _count(steps: list[Tensor]) -> None:
    """Add 1 to each, as torch does: on the CPU one by one, where its kernel for lists takes three times as long."""
    if steps[0].device.type == "cpu":
        for step in steps:
            step.add_(_ONE)
    else:
        torch._foreach_add_(steps, 1)


def _sgd_names(settings: Settings) -> tuple[str, ...]:
    return () if settings["momentum"] == 0 else ("momentum_buffer",)


def _sgd(
    parameters: Parameters,
    gradients: Gradients,
    state: list[list[Tensor]],
    settings: Settings,
    found_inf: Tensor | None,
) -> None:
    kernel: Callable[..., Any] = torch._fused_sgd_
    kernel(
        parameters,
        gradients,
        *(state or [[]]),
        weight_decay=settings["weight_decay"],
        momentum=settings["momentum"],
        lr=settings["lr"],
        dampening=settings["dampening"],
        nesterov=settings["nesterov"],
        maximize=settings["maximize"],
        is_first_step=False,
        grad_scale=None,
        found_inf=found_inf,
    )


_KINDS: dict[type, tuple[Callable[..., tuple[str, ...]], Callable[..., None]]] = {
    Adam: (_adam_names, _adam),
    AdamW: (_adam_names, _adam),
    SGD: (_sgd_names, _sgd),
}
"""Of each optimizer: the names of the state that its kernel takes with these settings, and the step of one group."""
