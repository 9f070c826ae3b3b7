"""Sources of samples: memory, or workers for sets that do not fit into it. Both give the same batches."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.bounds import integer
from data.order import Pick

Batch = tuple[Tensor, Tensor]
Prepare = Callable[[Tensor], Tensor]


class Source(Protocol):
    """Samples by index. `home` is the device on which indices must be."""

    @property
    def home(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "Source":
        """The same samples, with batches on `device`."""

    def batches(self, picks: Iterable[Pick]) -> Iterator[Batch]:
        """(inputs, targets) for each pick, in that order."""


class Memory:
    """Tensors of equal length on a device; `prepare` turns a batch of stored inputs into a net's inputs."""

    def __init__(self, inputs: Tensor, targets: Tensor, prepare: Prepare | None = None) -> None:
        if len(inputs) != len(targets):
            raise ValueError(f"{len(inputs)} inputs have {len(targets)} targets: give one for each.")
        self.inputs, self.targets, self.prepare = inputs, targets, prepare

    @property
    def home(self) -> torch.device:
        return self.inputs.device

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> "Memory":
        return Memory(self.inputs.to(device), self.targets.to(device), self.prepare)

    def has_target(self, value: int) -> bool:
        """Whether any target is `value`."""
        return bool((self.targets == value).any())

    def batches(self, picks: Iterable[Pick]) -> Iterator[Batch]:
        for _, indices in picks:
            inputs = self.inputs.index_select(0, indices)
            yield self.prepare(inputs) if self.prepare else inputs, self.targets.index_select(0, indices)


class Workers:
    """A map-style data set of (input, target), read by `num_workers` processes that stay between iterations."""

    home = torch.device("cpu")

    def __init__(self, dataset: Dataset, num_workers: int, prepare: Prepare | None = None) -> None:
        self.dataset, self.prepare = dataset, prepare
        self.num_workers = integer("num_workers", num_workers, low=0)
        self._device, self._queue = self.home, _Queue()
        self._loader: DataLoader | None = None

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def to(self, device: torch.device) -> "Workers":
        moved = Workers(self.dataset, self.num_workers, self.prepare)
        moved._device = device
        return moved

    def batches(self, picks: Iterable[Pick]) -> Iterator[Batch]:
        """A new iteration takes over the workers; an older one then raises RuntimeError."""
        if self._loader is None:
            self._loader = self._start()
        self._queue.picks = picks
        for inputs, targets in self._loader:
            inputs = inputs.to(self._device, non_blocking=True)
            targets = targets.to(self._device, non_blocking=True)
            yield self.prepare(inputs) if self.prepare else inputs, targets
            if self._queue.picks is not picks:
                raise RuntimeError("a newer iteration has taken over the workers of this data set: use that one.")

    def _start(self) -> DataLoader:
        return DataLoader(
            self.dataset,
            batch_sampler=self._queue,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # so that the global generator is not used
        )


class _Queue:
    """The batch sampler of a persistent loader: each pass reads the picks that were set last."""

    picks: Iterable[Pick] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return (pick.indices.tolist() for pick in self.picks)
