"""Parquet files of any size, read by row groups: a few of them are in memory, and their rows are shuffled together."""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.bounds import integer
from data.module import DataModule, Splits
from data.order import Pick, mix, permutation
from data.reader import SampleError
from data.size import parquet_files
from data.tree import moved

OPENED = 16
"""Files that stay open."""
MAPPED = 2**28
"""Bytes read from mapped files before all are closed: until then, what was read counts as memory of the process."""
BEYOND = 2**62
"""A place that no array has."""
KEPT = 2
"""Sets of row groups in memory: the one that batches are taken from, and the one that a thread reads ahead.

A sampling of another kind takes rows from any set, and one more is kept.
"""


def in_sets(samples: int, seed: int, epoch: int, *, rows: Sequence[int], mixed: int) -> Tensor:
    """The row groups in random order, in sets of `mixed`; the rows of a set are shuffled together.

    `rows` are the numbers of rows of all groups. A sampling of `data.sampling`: each sample once.

    >>> in_sets(6, 0, 0, rows=[2, 2, 2], mixed=1).div(2, rounding_mode="floor").unique_consecutive().numel()
    3
    """
    begins = np.cumsum([0, *rows[:-1]])
    found = []
    for number, groups in enumerate(sets(len(rows), seed, epoch, mixed)):
        members = torch.cat([torch.arange(begins[group], begins[group] + rows[group]) for group in groups])
        found.append(members.index_select(0, permutation(len(members), mix(seed, number), epoch)))
    return torch.cat(found)


def sets(groups: int, seed: int, epoch: int, mixed: int) -> list[list[int]]:
    """The groups of each set in an epoch."""
    return [part.tolist() for part in permutation(groups, seed, epoch).split(mixed)]


class ReadSet:
    """The columns of some row groups in memory, one group after another; `ranges` are their rows, (first, end) each."""

    def __init__(self, columns: Sequence[np.ndarray], ranges: Sequence[tuple[int, int]]) -> None:
        self.columns, bounds, shifts = columns, [], [BEYOND]
        places = accumulate((end - first for first, end in ranges), initial=0)
        for (first, end), place in sorted(zip(ranges, places)):
            bounds += [first, end]
            shifts += [place - first, BEYOND]
        self._bounds, self._shifts = np.array(bounds, dtype=np.int64), np.array(shifts)

    def picked(self, rows: np.ndarray) -> list[np.ndarray]:
        """The columns of some rows. IndexError for a row of another set: its place is beyond the end."""
        places = rows + self._shifts.take(self._bounds.searchsorted(rows, "right"))
        return [column.take(places, 0) for column in self.columns]


NONE = ReadSet([np.empty(0)], [])
"""No rows."""


class RowGroups:
    """The rows of Parquet files by index, in the order of the files.

    A batch is the pair of the two columns, or with `named` a dictionary of all columns. The groups are read in the sets
    that `in_sets` takes in an epoch. A thread reads the next set ahead. Without `mixed` they are read one by one in
    their order.
    """

    home = torch.device("cpu")

    def __init__(
        self, files: Sequence[Path], columns: Sequence[str], named: bool, mixed: int | None, device: Any = home
    ) -> None:
        from pyarrow import parquet

        self.files, self.columns, self.named, self.mixed, self._device = files, columns, named, mixed, device
        opened = [parquet.ParquetFile(file).metadata for file in files]
        self.places = [(file, i) for file, meta in zip(files, opened) for i in range(meta.num_row_groups)]
        groups = [meta.row_group(i) for meta in opened for i in range(meta.num_row_groups)]
        self.rows, self._sizes = [group.num_rows for group in groups], [group.total_byte_size for group in groups]
        self._ends = np.cumsum(self.rows)
        self._ranges = [(end - count, end) for end, count in zip(self._ends.tolist(), self.rows)]
        self._sets: OrderedDict[tuple[int, ...], Future[ReadSet]] = OrderedDict()
        self._opened: OrderedDict[Path, Any] = OrderedDict()
        self._mapped = 0
        self._epoch: tuple[int, int] | None = None
        self._number, self._last = -1, NONE
        self._thread = ThreadPoolExecutor(1, "row groups")

    def __len__(self) -> int:
        return sum(self.rows)

    def to(self, device: torch.device) -> "RowGroups":
        return RowGroups(self.files, self.columns, self.named, self.mixed, device)

    def check(self, place: str) -> None:
        """ValueError where a file lacks a column."""
        from pyarrow import parquet

        for file in self.files:
            there = parquet.read_schema(file).names
            if lacking := [name for name in self.columns if name not in there]:
                raise ValueError(f"{place} has no column {lacking[0]}, but {', '.join(there)}: choose of these.")

    def batches(self, picks: Iterable[Pick]) -> Iterator[Any]:
        here = self._device.type == "cpu"
        for pick in picks:
            if self._epoch != (pick.seed, pick.epoch):
                self._begin(pick)
            rows = pick.indices.numpy()
            try:
                found = self._last.picked(rows)  # most batches lie in one set
            except IndexError:
                found = []  # the error holds the set until it is handled
            tensors = map(torch.from_numpy, found or self._picked(rows))
            batch = dict(zip(self.columns, tensors)) if self.named else tuple(tensors)
            yield batch if here else moved(batch, self._device)

    def _begin(self, pick: Pick) -> None:
        """Take the sets of the epoch of a pick."""
        begun, self._epoch = self._epoch is not None, (pick.seed, pick.epoch)
        groups, mixed = len(self.places), self.mixed
        if begun and not mixed:
            return
        made = sets(groups, pick.seed, pick.epoch, mixed) if mixed else [[i] for i in range(groups)]
        self._made, self._last = [tuple(one) for one in made], NONE
        self._set_of = np.empty(groups, dtype=np.int64)
        for number, one in enumerate(made):
            self._set_of[one] = number

    def _picked(self, rows: np.ndarray) -> list[np.ndarray]:
        """The columns of rows of any sets."""
        members = self._set_of.take(self._ends.searchsorted(rows, "right"))
        found: list[np.ndarray] = []
        for number in sorted(set(members.tolist())):
            where = (members == number).nonzero()[0]
            columns = self._set(number).picked(rows[where])
            found = found or [np.empty((len(rows), *one.shape[1:]), one.dtype) for one in columns]
            for whole, column in zip(found, columns):
                whole[where] = column
        return found

    def _set(self, number: int) -> ReadSet:
        """A set of the epoch; the next one is read meanwhile, once there is room for it."""
        if self._last is not NONE and self._number == number:
            return self._last
        wanted, self._number, self._last = self._made[number : number + 2], number, NONE
        for one in wanted:
            if one in self._sets:
                self._sets.move_to_end(one)
        absent = [one for one in wanted if one not in self._sets]
        while len(self._sets) + len(absent) > KEPT + (not self.mixed):
            self._sets.popitem(last=False)
        for one in absent:
            self._sets[one] = self._thread.submit(self._read, one)
        self._last = self._sets[wanted[0]].result()
        return self._last

    def _read(self, groups: Sequence[int]) -> ReadSet:
        parts, several = [], len(self.columns) > 2  # threads of Arrow read a column each
        for group in groups:
            file, number = self.places[group]
            parts.append(self._file(file).read_row_group(number, columns=self.columns, use_threads=several))
            self._mapped += self._sizes[group]
        arrays = [[numbers(part[name], name) for part in parts] for name in self.columns]
        return ReadSet([joined(one) for one in arrays], [self._ranges[group] for group in groups])

    def _file(self, file: Path) -> Any:
        """An open file: to open one takes a third of the time of reading a row group of 1 MB."""
        if self._mapped > MAPPED:
            self._mapped = 0
            while self._opened:
                self._opened.popitem()[1].close()
        if file not in self._opened:
            self._opened[file] = _mapped(file)
        self._opened.move_to_end(file)
        if len(self._opened) > OPENED:
            self._opened.popitem(last=False)[1].close()
        return self._opened[file]


def _mapped(file: Path) -> Any:
    """An open file, mapped into memory where its file system can, which saves a copy of all that is read."""
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file, memory_map=True, pre_buffer=False)
    except OSError:
        return parquet.ParquetFile(file, pre_buffer=False)


class ParquetRows(DataModule):
    """Rows of numbers in Parquet files that need not fit into memory.

    `path`, `val_path` and `test_path` are files, or folders of some. A sample is the pair of the columns `inputs` and
    `label`, or with `columns` a dictionary of these. `mixed` row groups at a time are shuffled together. `classes` is
    for the model. FileNotFoundError without a file; ValueError where a column is not there.
    """

    def __init__(
        self,
        *,
        path: str,
        val_path: str | None = None,
        test_path: str | None = None,
        inputs: str = "inputs",
        label: str = "label",
        columns: Sequence[str] | None = None,
        mixed: int = 4,
        classes: int | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.paths = {"path": path, "val_path": val_path, "test_path": test_path}
        self.columns, self.named = list(columns or (inputs, label)), columns is not None
        self.mixed, self.classes = integer("data.mixed", mixed), classes

    def read(self) -> Splits:
        train, val, test = (self._groups(name, path) for name, path in self.paths.items())
        assert train is not None
        if self.sampling is None:
            self.sampling = partial(in_sets, rows=train.rows, mixed=self.mixed)
            train.mixed = self.mixed
        return Splits(train, val, test)

    @property
    def shape(self) -> dict[str, int]:
        self.setup()
        source: Any = self.splits.train
        found: dict[str, int] = {} if self.classes is None else {"classes": self.classes}
        if self.named:
            return found
        first = next(iter(source.batches([Pick(0, torch.arange(1), self.seed)])))
        return {"in_features": first[0][0].numel(), **found}

    def _groups(self, name: str, path: str | None) -> RowGroups | None:
        if path is None:
            return None
        source = RowGroups(parquet_files(f"data.{name}", path), self.columns, self.named, None)
        source.check(f"data.{name}={path}")
        return source


def numbers(column: Any, name: str) -> np.ndarray:
    """A column of Arrow as an array: whole numbers int64, others float32, lists of equal length in rows.

    SampleError for other columns, and where a value is missing.
    """
    from pyarrow import types

    kind, count = column.type, len(column)
    if column.null_count:
        raise SampleError(f"data: {column.null_count} values of the column {name} are missing: fill them.")
    if types.is_list(kind) or types.is_fixed_size_list(kind):
        whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies a single one, too
        inner = whole.flatten()
        flat = numbers(inner, name)
        if len(flat) % max(count, 1):
            raise SampleError(f"data: the lists of the column {name} differ in length: pad them.")
        return flat.reshape(count, -1)
    if types.is_integer(kind) or types.is_boolean(kind):
        return column.to_numpy(**_copied(column)).astype(np.int64, copy=False)
    if types.is_floating(kind):
        return column.to_numpy(**_copied(column)).astype(np.float32, copy=False)
    raise SampleError(f"data: the column {name} has the type {kind}: numbers, or lists of numbers, are needed.")


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One array after another, in memory of Arrow's pool: the system would give numpy's pages anew for each set."""
    import pyarrow

    if len(parts) == 1:
        return parts[0]
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    memory = pyarrow.allocate_buffer(math.prod(shape) * parts[0].itemsize)
    return np.concatenate(parts, out=np.frombuffer(memory, parts[0].dtype).reshape(shape))


def _copied(column: Any) -> dict[str, Any]:
    """The argument that lets an Arrow array give booleans, too; one of several chunks takes none."""
    return {} if hasattr(column, "chunks") else {"zero_copy_only": False}
