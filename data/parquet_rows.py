"""Parquet files of any size, read by row groups: a few of them are in memory, and their rows are shuffled together."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
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
        found.append(members[permutation(len(members), mix(seed, number), epoch)])
    return torch.cat(found)


def sets(groups: int, seed: int, epoch: int, mixed: int) -> list[list[int]]:
    """The groups of each set in an epoch."""
    return [part.tolist() for part in permutation(groups, seed, epoch).split(mixed)]


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
        self.rows = [meta.row_group(i).num_rows for meta in opened for i in range(meta.num_row_groups)]
        self._ends = np.cumsum(self.rows)
        self._sets: OrderedDict[tuple[int, ...], Future[dict[str, np.ndarray]]] = OrderedDict()
        self._opened: OrderedDict[Path, Any] = OrderedDict()
        self._epoch: tuple[int, int] | None = None
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
        for pick in picks:
            self._begin(pick)
            found = self._picked(pick.indices.numpy())
            tensors = {name: torch.from_numpy(found[name]) for name in self.columns}
            batch = tensors if self.named else tuple(tensors.values())
            yield batch if self._device.type == "cpu" else moved(batch, self._device)

    def _begin(self, pick: Pick) -> None:
        """Take the sets of the epoch of a pick, where it is another than before."""
        if self._epoch == (found := (pick.seed, pick.epoch) if self.mixed else (0, 0)):
            return
        groups, mixed = len(self.places), self.mixed
        made = sets(groups, pick.seed, pick.epoch, mixed) if mixed else [[i] for i in range(groups)]
        self._epoch, self._made = found, [tuple(one) for one in made]
        self._set_of, self._shifts = np.empty(groups, dtype=np.int64), -(self._ends - self.rows)
        for number, one in enumerate(made):
            self._set_of[one] = number
            self._shifts[one] += np.cumsum([0, *(self.rows[group] for group in one[:-1])])

    def _picked(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The columns of some rows."""
        groups = self._ends.searchsorted(indices, "right")
        members, local = self._set_of[groups], indices + self._shifts[groups]
        first = int(members[0])
        if np.count_nonzero(members == first) == len(members):
            return {name: column.take(local, 0) for name, column in self._set(first).items()}
        found: dict[str, np.ndarray] = {}
        for number in np.unique(members).tolist():
            where = members == number
            for name, column in self._set(number).items():
                if name not in found:
                    found[name] = np.empty((len(indices), *column.shape[1:]), dtype=column.dtype)
                found[name][where] = column.take(local[where], 0)
        return found

    def _set(self, number: int) -> dict[str, np.ndarray]:
        """A set of the epoch; the next one is read meanwhile."""
        wanted = [self._made[number], *self._made[number + 1 : number + 2]]
        for one in wanted:
            if one not in self._sets:
                self._sets[one] = self._thread.submit(self._read, one)
        self._sets.move_to_end(wanted[0])
        while len(self._sets) > KEPT + (not self.mixed):
            self._sets.popitem(last=False)
        return self._sets[wanted[0]].result()

    def _read(self, groups: Sequence[int]) -> dict[str, np.ndarray]:
        parts, several = [], len(self.columns) > 2  # threads of Arrow read a column each
        for group in groups:
            file, number = self.places[group]
            parts.append(self._file(file).read_row_group(number, columns=self.columns, use_threads=several))
        arrays = {name: [numbers(part[name], name) for part in parts] for name in self.columns}
        return {name: one[0] if len(one) == 1 else np.concatenate(one) for name, one in arrays.items()}

    def _file(self, file: Path) -> Any:
        """An open file: to open one takes a third of the time of reading a row group of 1 MB."""
        from pyarrow import parquet

        if file not in self._opened:
            self._opened[file] = parquet.ParquetFile(file, pre_buffer=False)
        self._opened.move_to_end(file)
        if len(self._opened) > OPENED:
            self._opened.popitem(last=False)[1].close()
        return self._opened[file]


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


def _copied(column: Any) -> dict[str, Any]:
    """The argument that lets an Arrow array give booleans, too; one of several chunks takes none."""
    return {} if hasattr(column, "chunks") else {"zero_copy_only": False}
