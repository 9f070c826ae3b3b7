"""Tensors of which each process holds a part: their norms, and the way from whole tensors to parts and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def own(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, in place; all of it where it is not shared out."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def norms(tensors: Sequence[Tensor], dtype: torch.dtype | None = None) -> Sequence[Tensor]:
    """The norm of each tensor, computed in `dtype`.

    Of what is shared out it is that of the whole, √Σ |part|² over the processes, the same on each to the bit.
    """
    shared = [i for i, tensor in enumerate(tensors) if isinstance(tensor, DTensor)]
    found = list(torch._foreach_norm([own(tensor) for tensor in tensors], 2, dtype))
    if shared:
        squares = torch.stack([found[i] for i in shared]).double().square()
        mesh: Any = tensors[shared[0]]
        dist.all_reduce(squares, group=mesh.device_mesh.get_group())
        for i, norm in zip(shared, squares.sqrt()):
            found[i] = norm.to(found[i].dtype)
    return found


def part(value: Tensor, of: Tensor) -> Tensor:
    """The whole tensor `value` shared out as the tensor `of` is; as it is where `of` is not, or `value` already is."""
    if not isinstance(of, DTensor) or isinstance(value, DTensor):
        return value
    value = value.detach().to(of.device)
    return distribute_tensor(value, of.device_mesh, of.placements, src_data_rank=None)


def whole(tree: Any, keep: bool = True) -> Any:
    """A tree of dicts and lists with each tensor that is shared out put together, on the CPU; all processes take part.

    One tensor after the other is whole on the devices. Without `keep` it is dropped again: one process is to have it.
    """
    if isinstance(tree, DTensor):
        with torch.no_grad():
            found = tree.full_tensor()
        return found.to("cpu", copy=True) if keep else None
    if isinstance(tree, Mapping):
        return {key: whole(value, keep) for key, value in tree.items()}
    return [whole(value, keep) for value in tree] if type(tree) in (list, tuple) else tree
