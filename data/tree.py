"""A batch as a tree: tensors in any nest of tuples, lists, dictionaries and dataclasses. All else in it rides along.

Named tuples and mappings of other classes, such as the `BatchEncoding` of transformers, are such nests, too.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities.apply_func import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


def mapped(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    """The same nest with `function(tensor)` in place of each tensor. ValueError for a frozen dataclass."""
    kind = type(tree)
    if kind is Tensor:
        return function(tree)
    if kind is dict:
        return {key: mapped(part, function) for key, part in tree.items()}
    if kind is tuple or kind is list:
        return kind([mapped(part, function) for part in tree])
    return _unfrozen(lambda: apply_to_collection(tree, Tensor, function))


def moved(tree: Any, device: torch.device) -> Any:
    """The batch on a device. Objects with a method `to`, such as graphs of PyTorch Geometric, move themselves."""
    return _unfrozen(lambda: move_data_to_device(tree, device))


def leaves(tree: Any) -> list[Any]:
    """What is in the nest, in order: tensors, strings, numbers, None."""
    if isinstance(tree, Mapping):
        parts = list(tree.values())
    elif isinstance(tree, list | tuple):
        parts = list(tree)
    elif is_dataclass(tree) and not isinstance(tree, type):
        parts = [getattr(tree, field.name) for field in fields(tree)]
    else:
        return [tree]
    return [leaf for part in parts for leaf in leaves(part)]


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in the nest, in order."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Tensor)]


def alongside(tree: Any, other: Any) -> list[Tensor]:
    """The tensors of `other` in the order of those in `tree` that have the same place. ValueError for another nest."""
    if isinstance(tree, Tensor) and isinstance(other, Tensor):
        return [other]
    if isinstance(tree, Mapping) and isinstance(other, Mapping) and tree.keys() == other.keys():
        pairs = [(tree[key], other[key]) for key in tree]
    elif isinstance(tree, list | tuple) and isinstance(other, list | tuple) and len(tree) == len(other):
        pairs = list(zip(tree, other))
    elif is_dataclass(tree) and type(tree) is type(other):
        pairs = [(getattr(tree, field.name), getattr(other, field.name)) for field in fields(tree)]
    elif tree is None and other is None:
        return []
    else:
        raise ValueError(f"one has {_kind(tree)} where the other has {_kind(other)}")
    return [tensor for pair in pairs for tensor in alongside(*pair)]


def _kind(tree: Any) -> str:
    if isinstance(tree, Mapping):
        return f"the keys {', '.join(map(str, tree))}"
    return f"a {type(tree).__name__}" + (f" of {len(tree)}" if isinstance(tree, list | tuple) else "")


def samples(tree: Any) -> int:
    """The common length of the tensors. ValueError where there is none."""
    lengths = [len(tensor) if tensor.ndim else 0 for tensor in tensors(tree)]
    if not lengths:
        raise ValueError("there is no tensor among the samples: give tensors, in any nest.")
    if len(set(lengths)) > 1:
        raise ValueError(f"tensors of {', '.join(map(str, lengths))} samples: give as many of each.")
    return lengths[0]


def nonfinite_rows(tree: Any, count: int) -> list[int]:
    """The rows that are not finite in any tensor of `count` rows."""
    bad = torch.zeros(count, dtype=torch.bool)
    for tensor in tensors(tree):
        if tensor.is_floating_point() and tensor.ndim and len(tensor) == count:
            bad |= ~tensor.detach().isfinite().reshape(count, -1).all(1).cpu()
    return bad.nonzero().flatten().tolist()


def fingerprint(tree: Any) -> str:
    """A short hash of the tensors, arrays, numbers and texts in the nest; of other objects, only their class counts."""
    found = hashlib.sha256()
    for leaf in leaves(tree):
        if isinstance(leaf, Tensor):
            found.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            found.update(leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject:
            found.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
        elif isinstance(leaf, str | bytes | int | float | None):
            found.update(repr(leaf).encode())
        else:
            found.update(type(leaf).__qualname__.encode())
    return found.hexdigest()[:12]


def _unfrozen(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except ValueError as error:
        if "frozen dataclass" not in str(error):
            raise
        raise ValueError(
            "a batch has a frozen dataclass, whose tensors cannot be replaced: drop frozen=True."
        ) from None
