"""Batches of a map-style data set, with a seed for each sample.

Before sample i of an epoch is read, the generators of torch, numpy and Python are seeded from (seed, epoch, i), and
before a batch is collated from (seed, epoch, all its indices). Random transforms are then the same for any number of
workers and processes, and after a resume. Generators of its own, which a data set may make, are not reached.
"""

import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from data.order import mix
from data.seeds import restored_generators, seed_generators

Collate = Callable[[list[Any]], Any]
Request = tuple[int, int, list[int]]
"""Seed, epoch and indices of a batch."""


class SampleError(RuntimeError):
    """A sample could not be read, or a batch not be made of samples."""


@dataclass
class Failure:
    """A `SampleError` that a worker hands over instead of raising it, because its line would be lost on the way."""

    line: str
    trace: str


class Reader(Dataset):
    """Makes the batch of a request, or a `Failure`.

    Samples are read one by one. Only the rows of a `TensorDataset`, and of a `datasets.Dataset` without a transform,
    are read at once, which is faster, because nothing in them is random.
    """

    def __init__(self, dataset: Any, collate_fn: Collate | None = None) -> None:
        self.dataset, self.collate_fn, self.name = dataset, collate_fn or collated, type(dataset).__name__
        self._holds_tensors = collate_fn is None and holds_tensors(dataset)

    def __getitem__(self, request: Request) -> Any:
        try:
            if self._holds_tensors:
                with naming(f"data: samples {_few(request[2])} of {self.name} cannot be read"):
                    return self._stored_rows(request[2])
            with restored_generators():
                return self._batch(*request)
        except SampleError as error:
            return Failure(str(error), traceback.format_exc())

    def _batch(self, seed: int, epoch: int, indices: list[int]) -> Any:
        shown = _few(indices)
        if reads_rows(self.dataset):
            with naming(f"data: samples {shown} of {self.name} cannot be read"):
                samples = self.dataset.__getitems__(indices)
        else:
            samples = [self._sample(index, mix(seed, epoch, index)) for index in indices]
        try:
            seed_generators(mix(seed, epoch, *indices))
            return self.collate_fn(samples)
        except Exception as error:
            what = f"data: samples {shown} of {self.name} do not make a batch{self._odd_ones(indices, samples)}"
            raise SampleError(f"{what}: {_reason(error)}") from error

    def _odd_ones(self, indices: list[int], samples: list[Any]) -> str:
        """Which samples do not fit the others of their batch; empty where it is not only a few."""

        def fits(one: Any, other: Any) -> bool:
            try:
                self.collate_fn([one, other])
            except Exception:
                return False
            return True

        found = ([i for i, sample in zip(indices, samples) if not fits(one, sample)] for one in samples[:3])
        odd = min(found, key=len)
        return f", because of {_few(odd)}" if 0 < 2 * len(odd) < len(samples) else ""

    def _stored_rows(self, indices: list[int]) -> tuple[Any, ...]:
        dataset: Any = self.dataset
        while isinstance(dataset, Subset):
            dataset, indices = dataset.dataset, [dataset.indices[index] for index in indices]
        return tuple(tensor[indices] for tensor in dataset.tensors)

    def _sample(self, index: int, seed: int) -> Any:
        seed_generators(seed)
        try:
            return self.dataset[index]
        except Exception as error:
            raise SampleError(f"data: sample {index} of {self.name} cannot be read: {_reason(error)}") from error


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Turns an error into a `SampleError` that says `what`."""
    try:
        yield
    except Exception as error:
        raise SampleError(f"{what}: {_reason(error)}") from error


def outlive_terminal(worker: int) -> None:
    """In a worker: ignore Ctrl-C and the end of the terminal. They reach the run as well, which needs its workers."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def received(batch: Any) -> Any:
    """The batch. `SampleError` where it could not be made."""
    if isinstance(batch, Failure):
        error = SampleError(batch.line)
        error.add_note(batch.trace)
        raise error
    return batch


def reads_rows(dataset: Any) -> bool:
    """Whether a data set is one of `datasets` without a transform."""
    if type(dataset).__module__.partition(".")[0] != "datasets" or not hasattr(dataset, "__getitems__"):
        return False
    return dataset.format["type"] != "custom"


def holds_tensors(dataset: Any) -> bool:
    """Whether a data set is a `TensorDataset`, or some samples of one."""
    return type(dataset) is TensorDataset or (type(dataset) is Subset and holds_tensors(dataset.dataset))


def collated(samples: list[Any]) -> Any:
    """`default_collate`, with tuples kept as tuples. TypeError for a list of numbers, which it would transpose."""
    first = samples[0]
    _refuse_lists_of_numbers(first)
    batch = default_collate(samples)
    return tuple(batch) if type(first) is tuple else batch


def _refuse_lists_of_numbers(tree: Any) -> None:
    named = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for name, part in named:
        if isinstance(part, list) and part and isinstance(part[0], int | float):
            raise TypeError(
                f"{name!r} is a list of numbers: give tensors, or a collate_fn that makes tensors of lists."
            )
        _refuse_lists_of_numbers(part)


def _few(indices: list[int]) -> str:
    return ", ".join(map(str, indices[:4])) + (", …" if len(indices) > 4 else "")


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
