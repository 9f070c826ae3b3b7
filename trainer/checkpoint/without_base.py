"""State dicts without the frozen part of a net, for adapters: it is made again from the config and its weights file."""

import hashlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def leave_out_frozen(net: nn.Module) -> str:
    """Leave the frozen parameters out of the state dict of `net`, and return a hash of their names and values.

    A state dict without them can be loaded: what is left out stays as it is. Buffers are kept.
    """
    frozen = {name: p for name, p in net.named_parameters(remove_duplicate=False) if not p.requires_grad}
    net.register_state_dict_post_hook(partial(_drop, frozenset(frozen)))
    net.register_load_state_dict_pre_hook(partial(_fill, frozenset(frozen)))
    found = hashlib.sha256()
    for name, parameter in frozen.items():
        found.update(name.encode())
        found.update(_bytes(parameter.detach()))
    return found.hexdigest()[:16]


def _bytes(values: Tensor) -> Any:
    return values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _drop(names: frozenset[str], net: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name in names:
        state.pop(prefix + name, None)


def _fill(names: frozenset[str], net: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for name, parameter in net.named_parameters(remove_duplicate=False):
        if name in names:
            state.setdefault(prefix + name, parameter)
