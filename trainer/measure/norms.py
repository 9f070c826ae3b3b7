"""Norms and ratios of each parameter group, and the sharpness of the loss."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from trainer.engine.protocols import MicroBatch
from trainer.engine.step import Step
from trainer.engine.update import Backward
from trainer.log.metric_buffer import Observation
from trainer.lr import ConfigError
from trainer.lr.bounds import integer, number
from trainer.optim.shards import local, norms

Setting = tuple[float, float | None]
"""The rate and the momentum of a group."""


@dataclass(frozen=True)
class Measurement:
    """What a run measures: norms every `every` updates, the sharpness every `sharpness` updates; None for neither.

    With `noise` the noise scale is logged too, by a `NoiseObserver`: `noise` is the share of its means that each update
    keeps.

    At update t, for each group, with the weights w before it, the change Δw of the weights, the gradient g as the
    optimizer got it (clipped, with noise), the applied rate η, and the momentum β (β1 where there are betas):

    - `grad_norm` ‖g‖, `weight_norm` ‖w‖, `update_norm` ‖Δw‖, `update_ratio` ‖Δw‖/‖w‖, `trust_ratio` ‖w‖/‖g‖;
    - `effective_lr` η/‖w‖²: the effective rate of weights that a normalisation layer follows (van Laarhoven 2017,
      arXiv:1706.05350). It is logged for every group, and means nothing where no such layer follows;
    - `coupled_lr` η/(1-β): the total step per gradient under SGD with momentum. Only where there is a β.

    Weights that are all zero make ratios infinite or nan. All processes have the same values.

    The sharpness λ is that of the loss on the first micro-batch of the update (rank 0's is logged), and `edge` is η·λ/2
    with the largest η of the groups. Gradient descent is stable on that loss for an edge below 1 (Cohen et al. 2021,
    arXiv:2103.00065); with momentum the limit is 1+β, and adaptive methods have their own.
    """

    every: int | None = 1
    sharpness: int | None = None
    iterations: int = 10
    noise: float | None = None

    def __post_init__(self) -> None:
        if self.every is not None:
            integer("measure.every", self.every, "1 measures every update, n every n-th, null none.")
        if self.noise is not None:
            number("measure.noise", self.noise, "it is the share of its means that each update keeps.", 0.8, 0.99999)
        integer("measure.iterations", self.iterations, "each is one product of the Hessian and a vector; try 10.")
        if self.sharpness is not None:
            integer("measure.sharpness", self.sharpness, "it is the interval of the sharpness in updates, or null.")
        if self.every is self.sharpness is self.noise is None:
            raise ConfigError("measure: every, sharpness and noise are all null: set one, or take measure=none.")

    @property
    def looks_at_weights(self) -> bool:
        """Whether norms or the sharpness are measured, by a `NormObserver`."""
        return self.every is not None or self.sharpness is not None


class NormObserver:
    """Measures the norms and the sharpness of a `Measurement`. It changes nothing and never waits for the device."""

    def __init__(self, measurement: Measurement, net: nn.Module, step: Step, optimizer: Optimizer) -> None:
        self.measurement, self.net, self.step, self.optimizer = measurement, net, step, optimizer
        self.parts: dict[str, slice] = {}
        self.parameters: list[Tensor] = []
        for group in optimizer.param_groups:
            first = len(self.parameters)
            self.parameters += group["params"]
            self.parts[group["name"]] = slice(first, len(self.parameters))
        self.dtype = reduce(torch.promote_types, (parameter.dtype for parameter in self.parameters), torch.float32)
        self.zero = torch.zeros((), device=self.parameters[0].device, dtype=self.dtype)
        self.copies: list[Tensor] = []
        self.numbers: list[Tensor] = []

    @torch.no_grad()
    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """Measure the gradients and weights of update `t`, and the sharpness on its first micro-batch."""
        self.numbers = []
        if self._wants_sharpness(t):
            self.numbers = [sharpness(self.net, self.step, update[0], self.measurement.iterations, t)]
        if self._wants_norms(t):
            gradients = [self.zero if parameter.grad is None else parameter.grad for parameter in self.parameters]
            self.numbers += norms([*gradients, *self.parameters], self.dtype)
            self.copies = self.copies or [torch.empty_like(parameter) for parameter in self.parameters]
            torch._foreach_copy_(list(map(local, self.copies)), list(map(local, self.parameters)))

    @torch.no_grad()
    def after(self, t: int) -> Observation | None:
        """The measured values of update `t`, on the device."""
        if self._wants_norms(t):
            torch._foreach_sub_(list(map(local, self.copies)), list(map(local, self.parameters)))
            self.numbers += norms(self.copies, self.dtype)
        if not self.numbers:
            return None
        settings = [(group["lr"], _momentum(group)) for group in self.optimizer.param_groups]
        return Observation(torch.stack(self.numbers), partial(self._named, self._wants_sharpness(t), settings))

    def _wants_norms(self, t: int) -> bool:
        return self.measurement.every is not None and t % self.measurement.every == 0

    def _wants_sharpness(self, t: int) -> bool:
        return self.measurement.sharpness is not None and t % self.measurement.sharpness == 0

    def _named(self, measured: bool, settings: list[Setting], numbers: list[float]) -> dict[str, float]:
        """The values by tag, from the numbers of an update and the rate and momentum of each group."""
        values = {}
        if measured:
            rate = max(lr for lr, _ in settings)
            values = {"measure/sharpness": numbers[0], "measure/edge": rate * numbers[0] / 2}
            numbers = numbers[1:]
        if numbers:
            count = len(self.parameters)
            kinds = numbers[:count], numbers[count : 2 * count], numbers[2 * count :]
            for (name, part), (lr, momentum) in zip(self.parts.items(), settings):
                gradient, weight, update = (math.hypot(*norms[part]) for norms in kinds)
                found = _values(gradient, weight, update, lr, momentum)
                values |= {f"measure/{name}/{key}": value for key, value in found.items()}
        return values


def _values(gradient: float, weight: float, update: float, lr: float, momentum: float | None) -> dict[str, float]:
    """The values of a group that `Measurement` names, from its three norms and its settings."""
    values = {"grad_norm": gradient, "weight_norm": weight, "update_norm": update}
    values |= {"update_ratio": _ratio(update, weight), "trust_ratio": _ratio(weight, gradient)}
    values["effective_lr"] = _ratio(lr, weight * weight)
    return values if momentum is None else {**values, "coupled_lr": _ratio(lr, 1 - momentum)}


def _ratio(over: float, under: float) -> float:
    return over / under if under else over * math.inf


def sharpness(net: nn.Module, step: Step, micro: MicroBatch, iterations: int, t: int) -> Tensor:
    """The largest eigenvalue λ, in absolute value, of the Hessian of the loss on `micro`, by power iteration.

    λ is a Rayleigh quotient, so never above the largest eigenvalue; more iterations come closer. They start at the
    gradient plus noise drawn from the update `t`. The net is in training mode, with the dropout of the update, in at
    least float32, on copies of its weights and buffers; the random generators of the run are left as they were.
    """
    weights = {f"net.{name}": _copy(p).requires_grad_() for name, p in net.named_parameters() if p.requires_grad}
    buffers = {f"net.{name}": _copy(buffer) for name, buffer in net.named_buffers()}
    leaves = list(weights.values())
    device = leaves[0].device
    with torch.enable_grad(), _undisturbed(device), _eager(net), sdpa_kernel(SDPBackend.MATH):
        Backward(device).reseed(micro.seed)
        batch = apply_to_collection(micro.batch, Tensor, _copy)
        value = torch.func.functional_call(_LossOf(net, step), {**weights, **buffers}, (batch, t))
        gradient = _flat(torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True))
        generator = torch.Generator(device).manual_seed(t)
        noise = torch.randn(gradient.shape, generator=generator, device=device, dtype=gradient.dtype)
        vector = _unit(gradient.detach()) + _unit(noise)  # gradients lie mostly in the steepest directions
        for _ in range(iterations):
            vector = _unit(vector)
            product = _flat(torch.autograd.grad(gradient, leaves, vector, retain_graph=True, materialize_grads=True))
            quotient, vector = (vector * product).sum(), product
    return quotient.detach()


class _LossOf(nn.Module):
    """The loss of a step as a module, so that the net in it can be called with other weights."""

    def __init__(self, net: nn.Module, step: Step) -> None:
        super().__init__()
        self.net, self.step = net, step

    def forward(self, batch: Any, t: int) -> Tensor:
        return self.step(self.net, batch, t=t).loss


def _copy(tensor: Tensor) -> Tensor:
    """A copy; of floating point numbers in at least float32."""
    wide = torch.promote_types(tensor.dtype, torch.float32) if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to(wide, copy=True)


def _unit(vector: Tensor) -> Tensor:
    return vector / torch.linalg.vector_norm(vector).clamp_min(torch.finfo(vector.dtype).tiny)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _momentum(group: dict[str, Any]) -> float | None:
    """β, or β1, of a parameter group; None where it has neither."""
    found = group.get("momentum", (group.get("betas") or (None,))[0])
    return found if isinstance(found, int | float) else None


def _undisturbed(device: torch.device) -> AbstractContextManager:
    """Restores the random number generators at the end."""
    return isolate_rng(include_cuda=device.type == "cuda")


def _eager(net: nn.Module) -> AbstractContextManager:
    """Runs a compiled net in eager mode: compiled code cannot be differentiated twice."""
    compiled = any(module._compiled_call_impl is not None for module in net.modules())
    return torch.compiler.set_stance("force_eager") if compiled else nullcontext()
