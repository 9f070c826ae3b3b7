"""Checks that the state of a run is finite before it is saved in place of an earlier checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.distributed.stop_signal import StopSignal
from trainer.engine.module import Module
from trainer.engine.update import Diverged
from trainer.optim.shards import local

Named = Mapping[str, Tensor]


class FiniteState:
    """Checks the state before it is saved, once after each update."""

    def __init__(self) -> None:
        self._exempt: frozenset[str] = frozenset()
        self._checked = -1

    def begin(self, module: Module, optimizers: Sequence[Any]) -> None:
        """What is not finite at the start, such as a mask of -inf, need not be finite later."""
        self._exempt, self._checked = frozenset(nonfinite(state_tensors(module, optimizers))), -1

    def check(self, module: Module, optimizers: Sequence[Any], ranks: StopSignal) -> None:
        """Raise `Diverged` where the state has a NaN or an infinity on any rank; all ranks call it together."""
        if self._checked == module.clock.t:
            return
        self._checked = module.clock.t
        found = [name for name in nonfinite(state_tensors(module, optimizers)) if name not in self._exempt]
        if not ranks.any_rank(bool(found)):
            return
        more = f" and {len(found) - 1} more tensors" if len(found) > 1 else ""
        what = (
            f"{found[0]}{more} of this run are" if more else f"{found[0] if found else 'a tensor of another rank'} is"
        )
        raise Diverged(
            f"after update {module.clock.t - 1} {what} not finite: the run stops, and this state is not saved. Lower "
            "optimizer.lr, lengthen the warm-up, or set trainer.clip."
        )


def state_tensors(module: Module, optimizers: Sequence[Any]) -> dict[str, Tensor]:
    """The floating-point tensors that a checkpoint holds, by name: weights, buffers, averages, optimizer state."""
    averaging = module.averaging.state_dict()
    named = {"": module.net.state_dict(), "average of ": averaging["mean"], "training weights of ": averaging["held"]}
    found = {f"{part}{name}": value for part, values in named.items() for name, value in values.items()}
    for optimizer in optimizers:
        names = {id(weight): name for name, weight in module.net.named_parameters()}
        for weight, state in optimizer.state.items():
            found |= {f"{key} of {names.get(id(weight), 'a weight')}": value for key, value in _leaves(state)}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype.itemsize > 1
    }


def nonfinite(tensors: Named) -> list[str]:
    """The names of the tensors with a NaN or an infinity; of sharded ones each rank looks at its own part."""
    by_device: dict[torch.device, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if (own := local(value.detach())).numel():
            by_device.setdefault(own.device, {})[name] = own
    found: list[str] = []
    for group in by_device.values():
        norms = torch._foreach_norm(list(group.values()), 2)  # the fastest pass, but it may overflow
        finite = torch.stack([norm.isfinite() for norm in norms])
        if not finite.all():
            asked = [name for name, good in zip(group, finite.tolist(), strict=True) if not good]
            found += [name for name in asked if not group[name].isfinite().all()]
    return found


def _leaves(state: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
        if isinstance(value, Mapping | list | tuple):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
