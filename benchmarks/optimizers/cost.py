"""The cost of an optimizer: the time of an update relative to SGD, and the memory of its state."""

import time
from collections.abc import Iterator
from copy import deepcopy
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.optimizers.trial import Trial, composed
from trainer.config.model_data import build_model, build_net
from trainer.config.settings import settings_of

BLOCK = 20
"""Updates of one optimizer before the next has its turn."""


class Loop:
    """A bare loop: forward, backward, step."""

    def __init__(self, name: str, net: nn.Module) -> None:
        self.net = deepcopy(net)
        settings = settings_of(composed(f"optimizer={name}"))
        self.optimizer = build_model(settings.curve, self.net, full_batch=True).optimizer()
        draw = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(64, 64, generator=draw)
        self.targets = torch.randint(10, (64,), generator=draw)

    def advance(self, updates: int) -> float:
        """Seconds of an update, as the mean of `updates` updates."""
        begun = time.perf_counter()
        for _ in range(updates):
            cross_entropy(self.net(self.inputs), self.targets).backward()
            self.optimizer.step()
            for parameter in self.net.parameters():
                parameter.grad = None
        return (time.perf_counter() - begun) / updates

    def bytes(self) -> float:
        """Bytes of the optimizer's state for each number that is trained."""
        held = {tensor.data_ptr(): tensor.nbytes for tensor in _tensors(self.optimizer.state_dict())}
        return sum(held.values()) / sum(parameter.numel() for parameter in self.net.parameters())


def measure(trials: list[Trial], rounds: int) -> float:
    """Set the time of each optimizer relative to SGD, and its memory. Returns the seconds of an update with SGD.

    In every round each optimizer has a block of updates, and SGD one just before it; the time is the median ratio.
    """
    torch.manual_seed(0)
    net = build_net(settings_of(composed()), {"in_features": 64, "classes": 10})
    bare = Loop("sgd", net)
    loops = {trial.name: Loop(trial.name, net) for trial in trials}
    ratios: dict[str, list[float]] = {trial.name: [] for trial in trials}
    base = []
    for count in range(rounds + 1):
        for name, loop in loops.items():
            before, own = bare.advance(BLOCK), loop.advance(BLOCK)
            if count:
                base.append(before)
                ratios[name].append(own / before)
    for trial in trials:
        trial.seconds, trial.bytes = median(ratios[trial.name]), loops[trial.name].bytes()
    return median(base)


def _tensors(state: Any) -> Iterator[Tensor]:
    """Every tensor of a state."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)
