"""The state of an assembled run: as a hash, and put back as it was."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.config.components import Parts


def fingerprint(parts: Parts) -> str:
    """SHA-256 of what a sweep must leave alone.

    Weights, buffers and gradients, what is trained and in which mode, the clock, the average, the data in memory, all
    random generators, and every file in the run's folder.
    """
    digest = hashlib.sha256()
    module = parts.module
    for name, value in _tensors(parts):
        _add(digest, name, value)
    for name, part in module.net.named_modules():
        digest.update(f"{name} {part.training}".encode())
    digest.update(f"{module.clock.t} {module.averaging.count} {len(module.metric_buffer)}".encode())
    for generator in _generators():
        _add(digest, "generator", generator)
    digest.update(repr(random.getstate()).encode() + repr(np.random.get_state()).encode())  # noqa: NPY002 - the global one
    for path in sorted(parts.folder.rglob("*")):
        digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


@contextmanager
def untouched(parts: Parts) -> Iterator[None]:
    """Put weights, buffers, gradients, modes, parts of the module and random state back as they were."""
    module: Any = parts.module
    net, data = module.net, parts.data
    follows = {name: value for name, value in vars(data).items() if name in ("_run", "_accumulate", "_stages")}
    kept = [(value, value.detach().clone()) for _, value in _weights(net)]
    grads = [(weight, weight.grad) for weight in net.parameters()]
    modes = [(part, part.training) for part in net.modules()]
    names = ("spec", "horizon", "control", "averaging", "metric_buffer", "observers")
    pieces = {name: getattr(module, name) for name in names}
    t, states = module.clock.t, (random.getstate(), np.random.get_state())  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        with torch.no_grad():
            for value, before in kept:
                value.copy_(before)
        for weight, grad in grads:
            weight.grad = grad
        for part, mode in modes:
            part.training = mode
        for name, value in pieces.items():
            setattr(module, name, value)
        module.clock.t = t
        vars(data).update(follows)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


def _weights(net: torch.nn.Module) -> list[tuple[str, Tensor]]:
    return [*net.named_parameters(), *net.named_buffers()]


def _tensors(parts: Parts) -> Iterator[tuple[str, Tensor]]:
    """All tensors of the state by name; data that workers read from files is not in memory."""
    net = parts.module.net
    yield from _weights(net)
    for name, weight in net.named_parameters():
        yield f"{name} {weight.requires_grad}", weight if weight.grad is None else weight.grad
    yield from parts.module.averaging.mean.items()
    for use in ("train", "val", "test"):
        source = getattr(parts.data.splits, use)
        for name in ("inputs", "targets"):
            if isinstance(value := getattr(source, name, None), Tensor):
                yield f"{use} {name}", value


def _generators() -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count()))]


def _add(digest: Any, name: str, value: Tensor) -> None:
    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
    digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
