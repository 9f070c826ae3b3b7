"""What every update did, kept on the device and drained now and then."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Journal:
    """A buffer with one row per applied update. Adding a row never synchronises the device; draining does, once."""

    updates: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    measures: list[Tensor] = field(default_factory=list)
    lrs: list[list[float]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.updates)

    def add(self, t: int, loss: Tensor, grad_norm: Tensor, lrs: list[float]) -> None:
        """Note update `t`: its loss and gradient norm (scalars on the device), the rates it was applied with."""
        self.updates.append(t)
        self.times.append(time.time())
        self.measures += (loss, grad_norm)
        self.lrs.append(lrs)

    def drain(self, names: list[str]) -> tuple[list[int], list[float], Tensor, dict[str, list[float]]]:
        """The rows so far and a fresh start: updates, wall times, (rows, 2) losses and norms, columns of rates."""
        measures = torch.stack(self.measures).view(-1, 2)
        columns = {f"lr/{name}": [row[i] for row in self.lrs] for i, name in enumerate(names)}
        rows = self.updates, self.times, measures, columns
        self.__init__()  # type: ignore[misc]
        return rows
