"""The running statistics of BatchNorm at weights that were not trained: taken anew over training batches."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.engine.clock import Clock


def batch_norms(net: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """The modules of `net` that keep running statistics, by name."""
    found = [(name, module) for name, module in net.named_modules() if isinstance(module, _BatchNorm)]
    return [(name, norm) for name, norm in found if norm.running_mean is not None]


@torch.no_grad()
def recalibrate(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics to their plain means over `batches`, the inputs of the net.

    Only the norms are in training mode: the statistics are those of the net as it is scored, without dropout, and
    nothing is drawn. Izmailov et al. 2018, arXiv:1803.05407, sec. 3.2.
    """
    norms = [norm for _, norm in batch_norms(net)]
    modes, momenta = [(module, module.training) for module in net.modules()], [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    for inputs in batches:
        net(inputs)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    for module, mode in modes:
        module.training = mode


def recent(loader: Any, clock: Clock, count: int, micro_batches: Callable[[int], int]) -> Iterator[Tensor]:
    """The inputs of `count` micro-batches of the updates just before the one that `clock` shows, as `loader` gave them.

    `micro_batches(t)` says how many update t has.

    The loader follows the clock, which is set back meanwhile: the batches are a function of the seed and the update,
    so that a resumed run has them too.
    """
    now, there = clock.t, 0
    try:
        while there < count and clock.t:
            clock.t -= 1
            there += micro_batches(clock.t)
        while count and clock.t < now:
            began = clock.t
            for update in itertools.chain.from_iterable(loader):
                for micro in update[:count]:
                    yield micro.inputs
                count, clock.t = count - len(update[:count]), clock.t + 1
                if not count or clock.t == now:
                    return
            assert clock.t > began, "the loader does not follow the clock"
    finally:
        clock.t = now
