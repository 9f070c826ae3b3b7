"""Data sets without an index, which give their samples in an order of their own: iterable and streaming ones."""

import copy
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from data.bounds import integer
from data.order import mix
from data.reader import Collate, Failure, SampleError, collated, naming, outlive_terminal, received
from data.seeds import restored_generators, seed_generators
from data.tree import fingerprint, moved

_END = object()


def is_streamed(dataset: Any) -> bool:
    """Whether a data set has no index, or no length."""
    return isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"))


@dataclass(frozen=True)
class Position:
    """A position between two samples: `read` samples of pass `epoch` are over, of which the last has the hash `last`.

    `state` is that of the data set there, or at the beginning of the pass where the pass is read again. It was reached
    with `workers` worker processes.
    """

    epoch: int = 0
    read: int = 0
    state: Any = None
    workers: int = 0
    last: str | None = None


class Streamed:
    """An iterable data set, read by this process, or by one worker with `num_workers` 1.

    A batch has as many samples as asked for, in the order given. At the end of a pass an incomplete batch is left out,
    and the next pass begins. A data set with `set_epoch` is put back to its first state and given the number of the
    pass. Any other goes on from its own state, so that a counter of its own counts; only one that then gives nothing is
    put back. Each sample is read with the generators of torch, numpy and Python seeded from (seed, pass, position in
    the pass).

    With `state_dict` and `load_state_dict` a data set can begin anywhere. Without them, or with a shuffle buffer,
    which is in no state, `reread` reads the pass again from its start; `SampleError` where it gives other samples then.
    `sharded` says that each process has a part of its own; a set of `datasets` is split by the run.
    """

    def __init__(
        self,
        dataset: Any,
        num_workers: int = 0,
        collate_fn: Collate | None = None,
        reread: bool = False,
        sharded: bool = False,
    ) -> None:
        if integer("data.num_workers", num_workers, low=0) > 1:
            raise ValueError(f"data.num_workers={num_workers}: a set that is streamed has one order: give 0 or 1.")
        if not hasattr(dataset, "__iter__"):
            raise ValueError(f"{type(dataset).__name__} is no data set: it has neither __getitem__ nor __iter__.")
        self.dataset, self.num_workers, self.collate_fn, self.reread = dataset, num_workers, collate_fn, reread
        self.sharded = sharded or getattr(dataset, "_distributed", None) is not None
        self.has_state = hasattr(dataset, "state_dict") and hasattr(dataset, "load_state_dict")
        self.has_buffer = _has_buffer(getattr(dataset, "_ex_iterable", None))
        self.told_epoch = hasattr(dataset, "set_epoch")
        self.first_state = self.state()

    def state(self) -> Any:
        """The state of the data set, if it has one."""
        return copy.deepcopy(self.dataset.state_dict()) if self.has_state else None

    @property
    def name(self) -> str:
        return type(self.dataset).__name__

    def check_ranks(self, world: int) -> None:
        """ValueError where two processes would read the same samples."""
        if world > 1 and not self.sharded and not _is_hugging_face(self.dataset):
            raise ValueError(
                f"data.train: {self.name} would give all {world} processes the same samples: let it give each its own "
                "part, and set data.sharded=true."
            )

    def of_rank(self, rank: int, world: int) -> "Streamed":
        """The part of one process."""
        self.check_ranks(world)
        if world == 1 or self.sharded:
            return self
        from datasets.distributed import split_dataset_by_node

        split = split_dataset_by_node(self.dataset, rank, world)
        return Streamed(split, self.num_workers, self.collate_fn, self.reread)

    def check_position(self, position: Position) -> None:
        """ValueError where reading cannot go on from a position."""
        if position.read and not self.reread and (self.has_buffer or not self.has_state):
            lacks = "its shuffle buffer is in no state" if self.has_state else "it has no state_dict"
            raise ValueError(
                f"data.train: {self.name} cannot go on after {position.read} samples, because {lacks}: "
                "set data.reread=true to read these again, or give it a state."
            )
        if position.read and position.workers != self.num_workers and _is_hugging_face(self.dataset):
            raise ValueError(
                f"data.num_workers={self.num_workers}, but the checkpoint was made with {position.workers}, and "
                "a set of datasets may shuffle otherwise in a worker: keep the number."
            )

    def samples(self, seed: int) -> list[Any]:
        """All samples of one pass."""
        with restored_generators():
            return list(_Pass(self, Position(), seed))

    def batches(
        self, batch_size: int, seed: int, start: Position, device: torch.device
    ) -> Iterator[tuple[Any, Position]]:
        """Batches from a position on, without end, each with the position after it."""
        self.check_position(start)
        loader = DataLoader(
            _Batches(self, batch_size, seed, start),
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            worker_init_fn=outlive_terminal,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # so that the global generator is not used
        )
        for given in loader:
            batch, position = received(given)
            yield moved(batch, device), Position(**position)


class _Batches(IterableDataset):
    """Pairs of a batch and the position after it, as a worker gives them, or a `Failure`."""

    def __init__(self, source: Streamed, batch_size: int, seed: int, start: Position) -> None:
        self.source, self.batch_size, self.seed, self.start = source, batch_size, seed, start
        self.collate_fn = source.collate_fn or collated

    def __iter__(self) -> Iterator[Any]:
        batches = self._batches()
        while True:
            try:
                with restored_generators():
                    given: Any = next(batches)
            except SampleError as error:
                given = Failure(str(error), traceback.format_exc())
            yield given

    def _batches(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        position = self.start
        while True:
            samples: list[Any] = []
            reading = _Pass(self.source, position, self.seed)
            for sample in reading:
                samples.append(sample)
                if len(samples) == self.batch_size:
                    seed_generators(mix(self.seed, position.epoch, reading.read, 0))
                    with naming(f"data: {len(samples)} samples of {self.source.name} do not make a batch"):
                        batch = self.collate_fn(samples)
                    yield batch, asdict(reading.position())
                    samples = []
            if reading.read < self.batch_size:
                raise SampleError(
                    f"data: {self.source.name} gives {reading.read} samples in pass {position.epoch}, and a batch has "
                    f"{self.batch_size}: lower data.batch_size, or let it begin anew each time."
                )
            position = Position(position.epoch + 1, state=None if self.source.told_epoch else self.source.state())


class _Pass:
    """Iterating gives the samples of a pass from a position on; `read` says how many of the pass are over."""

    def __init__(self, source: Streamed, start: Position, seed: int) -> None:
        self.source, self.start, self.seed = source, start, seed
        self.again = source.reread and start.read > 0
        self.begins = source.first_state if start.state is None else start.state
        self.read, self._last = 0, None  # type: int, Any

    def position(self) -> Position:
        """The position after the last sample."""
        source = self.source
        state, last = (self.begins, fingerprint(self._last)) if source.reread else (source.state(), None)
        return Position(self.start.epoch, self.read, state, source.num_workers, last)

    def __iter__(self) -> Iterator[Any]:
        name, epoch = self.source.name, self.start.epoch
        iterator = self._begin()
        while True:
            sample = self._next(iterator)
            if sample is _END and not self.read and self.begins is not self.source.first_state:
                self.begins = self.source.first_state  # the set is used up: it begins anew
                iterator = self._begin()
                sample = self._next(iterator)
            if sample is _END:
                return
            self.read += 1
            if self.again and self.read == self.start.read and self.start.last not in (None, fingerprint(sample)):
                raise SampleError(
                    f"data.train: {name} gives other samples in pass {epoch} than before the checkpoint, and "
                    "data.reread needs the same: give it set_epoch(epoch), from which its order follows, or a state."
                )
            self._last = sample
            if self.read > self.start.read:
                yield sample

    def _next(self, iterator: Iterator[Any]) -> Any:
        seed_generators(mix(self.seed, self.start.epoch, self.read))
        where = f"data: sample {self.read} in pass {self.start.epoch} of {self.source.name}"
        with naming(f"{where} cannot be read"):
            return next(iterator, _END)

    def _begin(self) -> Iterator[Any]:
        source, epoch = self.source, self.start.epoch
        there = self.start.read > 0 and not self.again
        with naming(f"data: {source.name} cannot be read"):
            if source.has_state and not there:
                source.dataset.load_state_dict(copy.deepcopy(self.begins))  # first, since it may hold an epoch
            if source.told_epoch:
                source.dataset.set_epoch(epoch)
            if source.has_state and there:
                source.dataset.load_state_dict(copy.deepcopy(self.begins))
                self.read = self.start.read
            seed_generators(mix(self.seed, epoch))
            return iter(source.dataset)


def _is_hugging_face(dataset: Any) -> bool:
    return type(dataset).__module__.partition(".")[0] == "datasets"


def _has_buffer(reader: Any) -> bool:
    """Whether a set of `datasets` has a shuffle buffer, which its state leaves out."""
    if type(reader).__name__ == "BufferShuffledExamplesIterable":
        return True
    inner = [getattr(reader, "ex_iterable", None), *getattr(reader, "ex_iterables", ())]
    return any(_has_buffer(one) for one in inner if one is not None)


def _unchanged(batch: Any) -> Any:
    return batch
