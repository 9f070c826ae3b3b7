"""The memory that a training takes in each process, as far as it can be told before the first update."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from trainer.engine.module import Module
from trainer.optim.shards import local


@dataclass(frozen=True)
class Memory:
    """Bytes in one process; None where they are not known.

    `parameters` with buffers, `gradients`, the state of the `optimizer`, the `average` of the weights, and the
    `activations`: the tensors that the forward pass of one micro-batch keeps for the backward pass.
    """

    parameters: int
    gradients: int
    optimizer: int | None
    average: int
    activations: int | None

    def items(self) -> list[tuple[str, int]]:
        """The parts that are known, by name, without those that take nothing."""
        known = ((one.name, getattr(self, one.name)) for one in fields(self))
        return [(name, size) for name, size in known if size]

    @property
    def total(self) -> int:
        """The sum of what is known."""
        return sum(size for _, size in self.items())


def memory_of(module: Module, activations: int | None) -> Memory:
    """The memory of a run that has begun to fit: the net and its optimizer are on their device."""
    parameters = list(module.net.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    averaged = module.spec.average.keep is not None
    return Memory(
        parameters=_bytes([*parameters, *module.net.buffers()]),
        gradients=_bytes(trained),
        optimizer=_optimizer_state(module),
        average=_bytes(trained) if averaged else 0,
        activations=activations,
    )


def _optimizer_state(module: Module) -> int | None:
    """The state that the optimizer has after a step, which it makes with gradients of zero; None by hand.

    The weights may then be others: nothing may be trained from them.
    """
    if module.hooks.optimizes_by_hand:
        return None
    updater = module.updater
    for parameter in updater.parameters:
        parameter.grad = torch.zeros_like(parameter)
    module.control.write(updater.optimizer, module.clock.at)
    updater.optimizer.step()
    parts: list[Any] = getattr(updater.optimizer, "parts", [updater.optimizer])
    return _bytes(one for part in parts for one in tree_leaves(list(part.state.values())) if isinstance(one, Tensor))


@dataclass
class Kept:
    """The bytes that a forward pass keeps for the backward pass; each storage counts once, those `known` do not."""

    known: set[int]
    sizes: dict[int, int] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)

    def take(self, tensor: Tensor) -> Tensor:
        """Count a tensor; it stays alive, so that no other one gets its place."""
        storage = local(tensor).untyped_storage()
        if storage.data_ptr() not in self.known:
            self.sizes[storage.data_ptr()] = storage.nbytes()
            self.tensors.append(tensor)
        return tensor

    @property
    def total(self) -> int:
        """The sum."""
        return sum(self.sizes.values())


@contextmanager
def kept_for_backward(net: nn.Module) -> Iterator[Kept]:
    """What forward passes of `net` in this context keep for the backward pass, beside parameters and buffers."""
    tensors = [*net.parameters(), *net.buffers()]
    kept = Kept({local(one).untyped_storage().data_ptr() for one in tensors})
    with torch.autograd.graph.saved_tensors_hooks(kept.take, lambda tensor: tensor):
        yield kept


def _bytes(tensors: Iterable[Tensor]) -> int:
    storages = {id(tensor): local(tensor).nbytes for tensor in tensors}
    return sum(storages.values())
