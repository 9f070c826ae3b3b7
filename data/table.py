"""A table of numbers and categories, from CSV or Parquet, for classification or regression of one column."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from data.bounds import share
from data.checks import class_labels, finite_numbers
from data.columns import (
    Columns,
    Values,
    alike,
    category_codes,
    check_classes,
    check_spaces,
    kind_of,
    number_columns,
    read_table,
)
from data.module import DataModule, Splits
from data.order import permutation
from data.source import Memory

Stored = tuple[tuple[Tensor, Tensor], Tensor | None]
"""Numbers (N, F) with nan for missing ones and codes of categories (N, K); targets, None for a file without them."""


class Table(DataModule):
    """Rows as (inputs, target). Inputs are one tensor, or a dictionary of numbers and categories.

    `path` is a CSV or Parquet file. Rows for validation and test are those of `val_path` and `test_path`, or shares of
    `path`, drawn by `split_seed`. `numbers` and `categories` are the columns to use; None: all columns of numbers, and
    all of texts and truth values, but `target`.

    With `inputs` "tensor" a row is (F + categories) floats, categories one-hot; with "dict" it is {"numbers": (F,)
    floats, "categories": (K,) int64}, where 0 stands for a value that no training row has. Numbers have mean 0 and
    deviation 1 over the training rows, unless `standardize` is false. `missing` "refuse" raises ValueError for a gap;
    "fill" takes the training mean, and makes a gap in a category a value of its own.

    The target is for `kind` "classification" a class, whole numbers from 0 on or texts in their order, and for
    "regression" a number, (1,) float. ValueError for rows that do not fit, FileNotFoundError without a file.

    For predictions of a trained run a file may lack the column `target`, or all its values. Its samples are inputs
    alone, and if it is `path`, all its rows are test samples.
    """

    def __init__(
        self,
        *,
        path: str,
        target: str,
        kind: Literal["classification", "regression"] = "classification",
        numbers: Sequence[str] | None = None,
        categories: Sequence[str] | None = None,
        inputs: Literal["tensor", "dict"] = "tensor",
        standardize: bool = True,
        missing: Literal["refuse", "fill"] = "refuse",
        val_path: str | None = None,
        test_path: str | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.paths = {"path": path, "val_path": val_path, "test_path": test_path}
        self.target, self.kind, self.inputs = target, kind, inputs
        self.numbers, self.categories = numbers, categories
        self.standardize, self.missing = standardize, missing
        self.fractions = [share("data.val_fraction", val_fraction), share("data.test_fraction", test_fraction)]
        self._columns = Columns((), ())
        self._values: Sequence[Values] = []
        self._sizes, self._kinds = list[int](), list[str]()
        self._classes, self._known_classes = 1, list[Any]()
        self.class_names: list[str] = []

    @property
    def shape(self) -> dict[str, Any]:
        numbers, classes = len(self._columns.numbers), {"classes": self._classes}
        if self.inputs == "dict":
            return {"numbers": numbers, "categories": [size + 1 for size in self._sizes], **classes}
        return {"in_features": numbers + sum(self._sizes), **classes}

    @property
    def notes(self) -> list[str]:
        return [self._columns.note(self.target)]

    def read(self) -> Splits:
        tables = {key: read_table(f"data.{key}", path) for key, path in self.paths.items() if path is not None}
        first = tables["path"]
        known = self._fitted
        columns = (self.numbers, self.categories) if known is None else (known["numbers"], known["categories"])
        self._columns = Columns.of(first, self.target, *columns)
        for key, table in tables.items():
            self._columns.check(table, f"data.{key}={self.paths[key]}", None if self._bare(table) else self.target)
        tables = self._alike(tables)
        where = {key: f"data.{key}={self.paths[key]}" for key in tables}
        fill = self.missing == "fill"
        numbers = {key: number_columns(table, self._columns.numbers, where[key], fill) for key, table in tables.items()}
        before = () if known is None else known["seen"]
        codes, self._values = category_codes(tables, self._columns.categories, where, fill, before)
        targets = self._targets(tables, where)
        return self._split({key: ((numbers[key], codes[key]), targets.get(key)) for key in tables})

    def _bare(self, table: Any) -> bool:
        """Whether a table is one to predict, without any target."""
        if self.purpose != "predict" or self._fitted is None:
            return False
        missing: bool = self.target not in table.column_names or table[self.target].null_count == table.num_rows
        return missing

    def _alike(self, tables: dict[str, Any]) -> dict[str, Any]:
        """The tables with categories and classes of one kind in all files."""
        names = [*self._columns.categories, *([self.target] if self.kind == "classification" else [])]
        self._kinds = [kind_of(tables["path"], name) for name in names]
        found: dict[str, Any] = alike(tables, names, self.paths, (self._fitted or {}).get("kinds", ()))
        return found

    def _targets(self, tables: dict[str, Any], where: dict[str, str]) -> dict[str, Tensor]:
        tables = {key: table for key, table in tables.items() if not self._bare(table)}
        places = {key: f"{where[key]}, column {self.target}" for key in tables}
        if self.kind == "regression":
            return {key: finite_numbers(table[self.target], places[key])[:, None] for key, table in tables.items()}
        columns = {key: table[self.target] for key, table in tables.items()}
        for key, column in columns.items():
            check_classes(column, places[key])
        values = sorted({value for column in columns.values() for value in column.to_pylist() if value is not None})
        check_spaces(values, next(iter(places.values()), ""))
        if self._fitted is not None:
            if new := [value for value in values if value not in self._fitted["classes"]]:
                first = next(iter(places.values()))
                raise ValueError(f"{first}: {new[0]!r} is no class that the run was trained with: leave it out.")
            values = self._fitted["classes"]
        elif len(values) == 1:
            raise ValueError(f"{next(iter(places.values()))}: all rows have the class {values[0]!r}: give two or more.")
        self._known_classes, self._classes = values, len(values)
        texts = all(column.type in ("string", "large_string") for column in columns.values())
        texts = texts and all(isinstance(value, str) for value in values)
        if texts:
            self.class_names = values
            place = {value: i for i, value in enumerate(values)} | {None: None}
            return {
                key: class_labels([place[v] for v in column.to_pylist()], self._classes, places[key])
                for key, column in columns.items()
            }
        return {key: class_labels(column, self._classes, places[key]) for key, column in columns.items()}

    def _split(self, stored: dict[str, Stored]) -> Splits:
        """The samples by use: files of their own, or shares of the first file."""
        keys = ("val_path", "test_path")
        if stored["path"][1] is None:  # nothing of it can train
            every = {key: Memory(part) for key, part in stored.items()}
            return Splits(every["path"], every.get("val_path"), every.get("test_path", every["path"]))
        rows = len(stored["path"][1])
        sizes = [0 if key in stored else int(rows * part) for key, part in zip(keys, self.fractions)]
        if sum(sizes) >= rows:
            raise ValueError(
                f"data.val_fraction={self.fractions[0]} and data.test_fraction={self.fractions[1]} leave nothing of "
                f"{rows} rows to train on: lower them."
            )
        parts = permutation(rows, self.split_seed, epoch=0).split([rows - sum(sizes), *sizes])
        found = [stored["path"] if len(parts[0]) == rows else _rows_at(stored["path"], parts[0])]
        found += [
            stored[key] if key in stored else _rows_at(stored["path"], part) for key, part in zip(keys, parts[1:])
        ]
        return Splits(*(Memory(part) if len(part[0][0]) else None for part in found))  # type: ignore[arg-type]

    def after_split(self, splits: Splits) -> Splits:
        if self._fitted is None:
            self._fitted = self._fit(*splits.train.stored[0])  # type: ignore[union-attr]
        mean, scale, shift = (
            torch.tensor(self._fitted[key], dtype=torch.float64) for key in ("mean", "scale", "shift")
        )
        seen = [
            torch.tensor([values.index(text) for text in texts])
            for values, texts in zip(self._values, self._fitted["seen"])
        ]
        self._sizes = [len(values) for values in seen]

        def finished(source: Memory) -> Memory:
            (numbers, codes), targets = source.stored
            filled = torch.where(numbers.isnan(), mean.to(numbers.dtype), numbers).double()
            scaled = ((filled - shift) / scale).float()
            known = [_among(column, values) for column, values in zip(codes.T.contiguous(), seen)]
            inputs = self._inputs(scaled, known)
            return Memory(inputs if targets is None else (inputs, targets))

        return Splits(*(None if part is None else finished(part) for part in splits))  # type: ignore[arg-type]

    def _fit(self, numbers: Tensor, codes: Tensor) -> dict[str, Any]:
        """What follows from the training rows, as plain values."""
        mean = numbers.double().nanmean(0)
        if mean.isnan().any():
            column = self._columns.numbers[int(mean.isnan().int().argmax())]
            raise ValueError(f"data.path, column {column}: no training row has a value: leave the column out.")
        centred = (numbers.double() - mean).nan_to_num(0.0)
        scale = (centred**2).mean(0).sqrt()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale)) if self.standardize else torch.ones_like(scale)
        shift = mean if self.standardize else torch.zeros_like(mean)
        seen = [[values[i] for i in column.unique().tolist()] for values, column in zip(self._values, codes.T)]
        numeric = {"mean": mean.tolist(), "scale": scale.tolist(), "shift": shift.tolist()}
        columns = {"numbers": list(self._columns.numbers), "categories": list(self._columns.categories)}
        return {**numeric, **columns, "kinds": self._kinds, "seen": seen, "classes": list(self._known_classes)}

    def _inputs(self, numbers: Tensor, known: list[Tensor]) -> Any:
        if self.inputs == "dict":
            codes = torch.stack(known, 1) if known else torch.zeros(len(numbers), 0, dtype=torch.int64)
            return {"numbers": numbers, "categories": codes}
        hot = [functional.one_hot(codes, size + 1)[:, 1:] for codes, size in zip(known, self._sizes)]
        return torch.cat([numbers, *(part.float() for part in hot)], 1)


def _rows_at(stored: Stored, indices: Tensor) -> Stored:
    (numbers, codes), targets = stored
    return (numbers[indices], codes[indices]), None if targets is None else targets[indices]


def _among(codes: Tensor, values: Tensor) -> Tensor:
    """The place of each code among the sorted `values`, counted from 1; 0 where it is none of them."""
    place = torch.searchsorted(values, codes).clamp(max=len(values) - 1)
    return torch.where(values[place] == codes, place + 1, 0)
