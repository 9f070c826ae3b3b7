"""Parameters that are not trained, and the running statistics that belong to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.lr import ConfigError


@dataclass(frozen=True)
class Frozen:
    """How much of a net is frozen: tensors and numbers, each out of all, and BatchNorms with fixed statistics."""

    tensors: int
    of_tensors: int
    numbers: int
    of_numbers: int
    norms: int

    def text(self) -> str:
        """The row of the table at the start of a run."""
        norms = f", statistics of {self.norms} BatchNorm fixed" if self.norms else ""
        tensors = f"{self.tensors} of {self.of_tensors} tensors"
        return f"{self.numbers:,} of {self.of_numbers:,} numbers in {tensors}{norms}"


def freeze(net: nn.Module, patterns: Sequence[str]) -> None:
    """No longer train the parameters whose names fit a pattern, with `*` and `?` as in a shell.

    A BatchNorm whose parameters are all frozen, or one without parameters whose name fits, keeps its running
    statistics and computes with them, as in Keras (`trainable = False`) and in torchvision's FrozenBatchNorm2d.
    A tied parameter fits by each of its names. Refused: a pattern that fits nothing, and a net with nothing to train.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    >>> freeze(net, ["0.*", "1.*"])
    >>> frozen(net).text()
    '10 of 13 numbers in 4 of 6 tensors, statistics of 1 BatchNorm fixed'
    """
    named = list(net.named_parameters(remove_duplicate=False))
    norms = [(name, module) for name, module in net.named_modules() if isinstance(module, _BatchNorm)]
    for pattern in patterns:
        found = [parameter for name, parameter in named if fnmatchcase(name, pattern)]
        if not found and not any(fnmatchcase(f"{name}.weight", pattern) for name, _ in norms):
            some = ", ".join(name for name, _ in named[:: max(1, len(named) // 4)])
            raise ConfigError(
                f"freeze: {pattern!r} fits no parameter of {type(net).__name__}: its names are such as {some}."
            )
        for parameter in found:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for _, parameter in named):
        raise ConfigError(f"freeze={list(patterns)} leaves nothing to train: leave a part of the model out of it.")
    for name, norm in norms if patterns else ():
        own = list(norm.parameters())
        fits = any(fnmatchcase(f"{name}.weight", pattern) for pattern in patterns)
        if not any(parameter.requires_grad for parameter in own) if own else fits:
            _fix_statistics(norm)


def frozen(net: nn.Module) -> Frozen | None:
    """How much of a net is frozen; None where nothing is."""
    every = list(net.parameters())
    cold = [parameter for parameter in every if not parameter.requires_grad]
    if not cold:
        return None
    numbers, of_numbers = (sum(parameter.numel() for parameter in some) for some in (cold, every))
    norms = sum(map(has_fixed_statistics, net.modules()))
    return Frozen(len(cold), len(every), numbers, of_numbers, norms)


def has_fixed_statistics(module: nn.Module) -> bool:
    """Whether a BatchNorm keeps the running statistics that it has."""
    return isinstance(module.__dict__.get("train"), _StaysInEval)


class _StaysInEval:
    """In place of the method `train` of a module: it stays in evaluation mode."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> Any:
        return self.module


def _fix_statistics(norm: _BatchNorm) -> None:
    norm.eval()
    norm.train = _StaysInEval(norm)  # type: ignore[method-assign]
