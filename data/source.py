"""Sources of samples: memory, or workers that read a map-style data set. Both give the same batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info

from data.bounds import integer
from data.order import Pick
from data.reader import Collate, Reader, Request, outlive_terminal, received
from data.tree import leaves, mapped, moved, samples, tensors

Prepare = Callable[[Any], Any]


class Source(Protocol):
    """Samples by index. `home` is the device on which indices must be."""

    @property
    def home(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> "Source":
        """The same samples, with batches on `device`."""

    def batches(self, picks: Iterable[Pick]) -> Iterator[Any]:
        """The batch of each pick, in that order."""


class Memory:
    """Tensors of equal length in any nest, such as a pair (inputs, targets), on a device.

    `prepare` turns a batch of what is stored into what the step takes.
    """

    def __init__(self, stored: Any, prepare: Prepare | None = None) -> None:
        if prepare is not None and not callable(prepare):
            raise ValueError("Memory takes one nest of tensors: give a pair as Memory((inputs, targets)).")
        others = {type(leaf).__name__ for leaf in leaves(stored) if not isinstance(leaf, Tensor | None)}
        if others:
            raise ValueError(f"Memory holds tensors, and this is {', '.join(others)}: give a data set to Workers.")
        self._length = samples(stored)
        self.stored, self.prepare = stored, prepare

    @property
    def inputs(self) -> Tensor:
        """The inputs of pairs."""
        return self.stored[0]

    @property
    def targets(self) -> Tensor:
        """The targets of pairs."""
        return self.stored[1]

    @property
    def home(self) -> torch.device:
        return tensors(self.stored)[0].device

    def __len__(self) -> int:
        return self._length

    @property
    def sample_bytes(self) -> int:
        """The size of a sample, of sparse tensors as if they were dense."""
        stored = tensors(self.stored)  # sparse ones have no nbytes
        return sum(tensor.numel() * tensor.element_size() for tensor in stored) // max(1, len(self))

    def to(self, device: torch.device) -> "Memory":
        return Memory(mapped(self.stored, lambda tensor: tensor.to(device)), self.prepare)

    def has_target(self, value: int) -> bool:
        """Whether any target may be `value`: False only for pairs in which none is."""
        pair = type(self.stored) is tuple and len(self.stored) == 2
        return not pair or any(bool((targets == value).any()) for targets in tensors(self.stored[1]))

    def batches(self, picks: Iterable[Pick]) -> Iterator[Any]:
        pair = type(self.stored) is tuple and len(self.stored) == 2
        stored = self._pairs if pair and all(isinstance(part, Tensor) for part in self.stored) else self._nests
        return map(self.prepare, stored(picks)) if self.prepare else stored(picks)

    def _pairs(self, picks: Iterable[Pick]) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, targets = self.stored
        for _, indices, _ in picks:
            yield inputs.index_select(0, indices), targets.index_select(0, indices)

    def _nests(self, picks: Iterable[Pick]) -> Iterator[Any]:
        for _, indices, _ in picks:
            yield mapped(self.stored, lambda tensor: tensor.index_select(0, indices))  # noqa: B023


class Workers:
    """A map-style data set, read by `num_workers` processes that stay between iterations, or by this one with 0.

    `collate_fn` makes a batch of a list of samples, by default as torch does. `prepare` changes a batch on its device.
    Each sample is read, and each batch made, with the generators of torch, numpy and Python seeded from the pick, so
    that random transforms do not depend on the workers (see `data.reader`). `options` are further arguments of
    `DataLoader`, such as `prefetch_factor`.
    """

    home = torch.device("cpu")

    def __init__(
        self,
        dataset: Any,
        num_workers: int = 0,
        collate_fn: Collate | None = None,
        prepare: Prepare | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.dataset, self.prepare = dataset, prepare
        self.num_workers = integer("data.num_workers", num_workers, low=0)
        self.collate_fn, self.options = collate_fn, dict(options or {})
        self.reader = Reader(dataset, collate_fn)
        self._device, self._queue = self.home, _Queue()
        self._loader: DataLoader | None = None
        self._placed = WeakSet[Workers]()

    def __len__(self) -> int:
        return len(self.dataset)

    def to(self, device: torch.device) -> "Workers":
        placed = Workers(self.dataset, self.num_workers, self.collate_fn, self.prepare, self.options)
        placed._device = device
        self._placed.add(placed)
        return placed

    def close(self) -> None:
        """End the processes of this source and of those placed by `to`; the next iteration starts new ones.

        Otherwise Python's garbage collector may end them, and torch then waits five seconds for each: their
        queues are closed by then, so they do not notice the end.
        """
        for source in (self, *self._placed):
            iterator: Any = getattr(source._loader, "_iterator", None)
            source._loader = None
            if iterator is not None:
                iterator._shutdown_workers()

    def batches(self, picks: Iterable[Pick]) -> Iterator[Any]:
        """A new iteration takes over the workers; an older one then raises RuntimeError."""
        if self._loader is None:
            self._loader = self._start()
        self._queue.picks = picks
        for given in self._loader:
            yield self._received(given)
            if self._queue.picks is not picks:
                raise RuntimeError("a newer iteration has taken over the workers of this data set: use that one.")

    def read(self, pick: Pick) -> Any:
        """The batch of one pick, read in this process."""
        return self._received(self.reader[_request(pick)])

    def _received(self, given: Any) -> Any:
        batch = moved(received(given), self._device)
        return self.prepare(batch) if self.prepare else batch

    def _start(self) -> DataLoader:
        options = dict(self.options)
        if self.num_workers:
            options["worker_init_fn"] = partial(_begin, options.get("worker_init_fn"))
        return DataLoader(
            self.reader,
            batch_size=None,  # the reader makes whole batches
            sampler=self._queue,
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            persistent_workers=self.num_workers > 0,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # so that the global generator is not used
            **options,
        )


class _Queue:
    """The sampler of a persistent loader: each pass reads the picks that were set last."""

    picks: Iterable[Pick] = ()

    def __iter__(self) -> Iterator[Request]:
        return map(_request, self.picks)


def _request(pick: Pick) -> Request:
    return pick.seed, pick.epoch, pick.indices.tolist()


def _begin(worker_init_fn: Callable[[int], Any] | None, worker: int) -> None:
    """Call the function of a loader in a worker; `get_worker_info().dataset` is then the data set, not its reader."""
    outlive_terminal(worker)
    if worker_init_fn is None:
        return
    info: Any = get_worker_info()
    object.__setattr__(info, "dataset", info.dataset.dataset)  # it is frozen
    worker_init_fn(worker)


def _unchanged(batch: Any) -> Any:
    return batch
