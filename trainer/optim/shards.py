"""Tensors that are sharded over the processes: their norms, and the way from full tensors to shards and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

_PLAIN = {Tensor, Parameter}


def local(tensor: Tensor) -> Tensor:
    """The shard of a tensor that this process holds, not copied; the tensor itself where it is not sharded."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def is_sharded(tensor: object) -> bool:
    """Whether a tensor is one of the shards of `torch.distributed.tensor`, which only a tensor of another type imports.

    The import takes as long as a tenth of a process's start.
    """
    if type(tensor) in _PLAIN or not isinstance(tensor, Tensor):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def norms(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> list[Tensor] | tuple[Tensor, ...]:
    """The norm of each tensor, computed in `dtype`.

    That of a sharded tensor is the norm of the full one, √Σ |shard|² over the processes, the same on each to the bit.
    """
    if _PLAIN.issuperset(map(type, tensors)):
        return torch._foreach_norm(list(tensors), 2, dtype)
    sharded = [i for i, tensor in enumerate(tensors) if is_sharded(tensor)]
    found = list(torch._foreach_norm([local(tensor) for tensor in tensors], 2, dtype))
    if sharded:
        squares = torch.stack([found[i] for i in sharded]).double().square()
        mesh: Any = tensors[sharded[0]]
        dist.all_reduce(squares, group=mesh.device_mesh.get_group())
        for i, norm in zip(sharded, squares.sqrt()):
            found[i] = norm.to(found[i].dtype)
    return found


def shard(value: Tensor, like: Tensor) -> Tensor:
    """The full tensor `value` sharded as `like` is; `value` itself where that is not sharded, or `value` already is."""
    if not is_sharded(like) or is_sharded(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    layout: Any = like
    value = value.detach().to(like.device)
    return distribute_tensor(value, layout.device_mesh, layout.placements, src_data_rank=None)


def gather(tree: Any, keep: bool = True) -> Any:
    """A tree of dicts and lists with each sharded tensor made full, on the CPU; all processes take part.

    Only one tensor at a time is full on the devices. Processes without `keep` get None in its place.
    """
    if is_sharded(tree):
        with torch.no_grad():
            found = tree.full_tensor()
        return found.to("cpu", copy=True) if keep else None
    if isinstance(tree, Mapping):
        return {key: gather(value, keep) for key, value in tree.items()}
    return [gather(value, keep) for value in tree] if type(tree) in (list, tuple) else tree
