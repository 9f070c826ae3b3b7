"""Nets of the same shapes that train as one: their weights lie in the rows of one matrix for each parameter group."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from trainer.engine.step import Step


class StackedNets:
    """K nets as one. `names` are the names of the trained parameters of each group, in the order of the group."""

    def __init__(self, nets: Sequence[nn.Module], names: Sequence[Sequence[str]], step: Step) -> None:
        self.nets, self.names, self.step = nets, names, step
        rows = [dict(net.named_parameters()) for net in nets]
        with torch.no_grad():
            self.weights = [
                torch.stack([torch.cat([row[name].flatten() for name in group]) for row in rows]) for group in names
            ]
        self.leaves: dict[str, Tensor] = {}
        for group, weights in zip(names, self.weights):
            at = 0
            for name in group:
                shape = rows[0][name].shape
                part = weights[:, at : at + shape.numel()].view(len(nets), *shape)
                self.leaves[name], at = part.detach().requires_grad_(), at + shape.numel()
        others = [{**dict(net.named_parameters()), **dict(net.named_buffers())} for net in nets]
        fixed = others[0].keys() - self.leaves.keys()
        self.fixed = {name: torch.stack([row[name].detach() for row in others]) for name in fixed}

    def gradients(self, batch: Any, shared: bool, t: int) -> tuple[Tensor, list[Tensor]]:
        """The loss of each net, (K,), and the gradients of each group, (K, P).

        Args:
            batch: one for all nets where `shared`, else with the batches of the nets stacked.
            shared: whether all nets see the same batch.
            t: the update.
        """

        def loss(tensors: Mapping[str, Tensor], batch: Any) -> Tensor:
            return self.step(_Call(self.nets[0], tensors), batch, t=t).loss  # type: ignore[arg-type]

        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention are not batched
            losses = vmap(loss, in_dims=(0, None if shared else 0))({**self.leaves, **self.fixed}, batch)
        made = dict(zip(self.leaves, torch.autograd.grad(losses.sum(), list(self.leaves.values()))))
        return losses.detach(), [torch.cat([made[name].flatten(1) for name in group], 1) for group in self.names]

    @torch.no_grad()
    def write_back(self) -> None:
        """Copy the rows into the nets."""
        for i, net in enumerate(self.nets):
            own = dict(net.named_parameters())
            for name, leaf in self.leaves.items():
                own[name].copy_(leaf[i])


class _Call:
    """A net with other tensors, as a step calls it."""

    def __init__(self, net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        self.net, self.tensors = net, dict(tensors)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return functional_call(self.net, self.tensors, inputs, named)


@torch.no_grad()
def clipped(gradients: Sequence[Tensor], limit: float | None) -> Tensor:
    """Clip the gradients of each net together to a norm, in place; the norms before, (K,)."""
    norms = torch.stack([torch.linalg.vector_norm(one, dim=1) for one in gradients]).norm(dim=0)
    if limit is not None:
        factors = torch.clamp(limit / (norms + 1e-6), max=1.0)[:, None]
        for one in gradients:
            one.mul_(factors)
    return norms


def why_not_stacked(nets: Sequence[nn.Module]) -> str:
    """Why these nets cannot train as one; empty where they may."""
    first = nets[0]
    shapes = [[(name, one.shape, one.dtype, one.requires_grad) for name, one in net.named_parameters()] for net in nets]
    if any(type(net) is not type(first) for net in nets) or any(one != shapes[0] for one in shapes):
        return "the nets differ in kind or shapes"
    for name, module in first.named_modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            return f"{name or 'the net'} is {type(module).__name__}, which keeps running statistics"
        drops = module.p if isinstance(module, _DropoutNd) else getattr(module, "dropout", 0.0)
        if isinstance(drops, int | float) and drops > 0:
            return f"{name or 'the net'} has dropout, whose draws differ in a stack"
    return ""
