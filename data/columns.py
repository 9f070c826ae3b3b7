"""The columns of a table as tensors: numbers, codes of categories."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.bounds import existing

Values = Sequence[str | None]
"""The values of a column of categories; None stands for a gap."""


def read_table(key: str, path: str, texts: Sequence[str] = ()) -> Any:
    """The Arrow table of a CSV or Parquet file; of a CSV file, the columns `texts` as they are written.

    FileNotFoundError without it; ValueError if it cannot be read.
    """
    import pyarrow
    from pyarrow import csv, parquet

    file = existing(key, path, "a CSV or Parquet file")
    try:
        if file.suffix.lower() in (".parquet", ".pq"):
            table = parquet.read_table(file)
        else:
            kinds = dict.fromkeys(texts, pyarrow.string())
            options = csv.ConvertOptions(strings_can_be_null=True, column_types=kinds)
            table = csv.read_csv(file, convert_options=options)
            if bad := [field.name for field in table.schema if pyarrow.types.is_binary(field.type)]:
                raise ValueError(f"{key}={path}: column {bad[0]} is not UTF-8 text: convert the file to UTF-8.")
            head = table.column_names[0]
            if table.num_columns == 1 and (other := next((sign for sign in ";\t|" if sign in head), None)):
                raise ValueError(f"{key}={path} has {other!r} between its columns: write it with commas.")
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        if "Expected 1 columns" in reason:
            reason += ": write it with commas."
        raise ValueError(f"{key}={path} cannot be read as a table: {reason}") from error
    if not table.num_rows:
        raise ValueError(f"{key}={path} has no rows: give a file with some.")
    return table


def kind_of(table: Any, name: str) -> str:
    """What a column holds: text, integers, numbers, truth values; or else the name of its type, "null" for none."""
    import pyarrow.types as kinds

    if name not in table.column_names:
        return "null"

    kind = table[name].type
    if _is_text(kind):
        return "text"
    if kinds.is_boolean(kind):
        return "truth values"
    return "integers" if kinds.is_integer(kind) else "numbers" if kinds.is_floating(kind) else str(kind)


def alike(tables: dict[str, Any], names: Sequence[str], paths: Mapping[str, str | None], before: Any = ()) -> Any:
    """The tables, with the columns of these names of one kind in all of them, and in `before`, their kinds at first.

    In CSV files, columns of several kinds are read again as texts. ValueError where this does not make them alike.
    """
    known = dict(zip(names, before))
    found = {
        name: ({kind_of(table, name) for table in tables.values()} | {known.get(name)}) - {None, "null"}
        for name in names
    }
    if mixed := [name for name, kinds in found.items() if len(kinds) > 1]:
        tables = {key: read_table(f"data.{key}", str(paths[key]), mixed) for key in tables}
    for name in mixed:
        kinds = {f"data.{key}={paths[key]}": kind_of(table, name) for key, table in tables.items()}
        if set(kinds.values()) - {"null"} != {"text"} or known.get(name, "text") not in ("text", "integers"):
            places = {**kinds, **({"the data of the trained run": known[name]} if name in known else {})}
            shown = ", ".join(f"{kind} in {where}" for where, kind in places.items())
            raise ValueError(f"data: column {name} holds {shown}: write it alike in all files.")
    return tables


@dataclass(frozen=True)
class Columns:
    """The names of the columns of numbers and of categories."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]

    @classmethod
    def of(cls, table: Any, target: str, numbers: Sequence[str] | None, categories: Sequence[str] | None) -> "Columns":
        """Those that are given, or else all of their kind in `table` but the target and the others."""
        import pyarrow.types as kinds

        given = {target, *(numbers or ()), *(categories or ())}
        found: tuple[list[str], list[str]] = ([], [])
        for field in table.schema:
            if field.name in given:
                continue
            if kinds.is_integer(field.type) or kinds.is_floating(field.type) or kinds.is_decimal(field.type):
                found[0].append(field.name)
            elif kinds.is_boolean(field.type) or _is_text(field.type):
                found[1].append(field.name)
            elif numbers is None and categories is None:
                raise ValueError(
                    f"data.path: column {field.name} has the type {field.type}, which is no number and no category: "
                    "name the columns to use in data.numbers and data.categories."
                )
        columns = cls(
            tuple(found[0] if numbers is None else numbers), tuple(found[1] if categories is None else categories)
        )
        if not columns.numbers and not columns.categories:
            raise ValueError(f"data.path has no column beside the target {target}: give some to learn from.")
        return columns

    def note(self, target: str) -> str:
        """The columns in words."""
        parts = (("numbers", self.numbers), ("categories", self.categories))
        return "; ".join([*(f"{kind} {_few(names)}" for kind, names in parts if names), f"target {target}"])

    def check(self, table: Any, where: str, target: str | None) -> None:
        """ValueError for a table without one of the columns, or one that is named twice."""
        used = [*self.numbers, *self.categories, *([] if target is None else [target])]
        for name in used:
            count = table.column_names.count(name)
            if count == 0:
                raise ValueError(f"{where} has no column {name}: its columns are {', '.join(table.column_names)}.")
            if count > 1:
                raise ValueError(f"{where} has several columns {name}: rename them.")
            if used.count(name) > 1:
                raise ValueError(
                    f"column {name} is named twice in data.numbers, data.categories and data.target: name it once."
                )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{', '.join(names[:8])}{more}"


def check_classes(column: Any, where: str) -> None:
    """ValueError for a column of numbers with fractions, which are no classes."""
    import pyarrow.types as kinds

    if kinds.is_floating(column.type):
        for row, value in enumerate(column.to_pylist()):
            if value is not None and math.isfinite(value) and value % 1:
                raise ValueError(
                    f"{where}: row {row} has {value}, which is no class: give whole numbers or texts, or set "
                    "data.kind=regression task=regression to predict numbers."
                )


def check_spaces(classes: Sequence[Any], where: str) -> None:
    """ValueError for two classes that differ only in the spaces around them."""
    bare: dict[str, str] = {}
    for value in classes:
        if isinstance(value, str) and bare.setdefault(value.strip(), value) != value:
            pair = f"{bare[value.strip()]!r} and {value!r}"
            raise ValueError(f"{where}: the classes {pair} differ only in spaces: write them in one way.")


def number_columns(table: Any, names: Sequence[str], where: str, fill: bool) -> Tensor:
    """(N, F) float32, with nan for gaps. ValueError for a value that is no finite number, or a gap unless `fill`."""
    columns = [_numbers(table[name], f"{where}, column {name}", fill) for name in names]
    return torch.stack(columns, 1) if columns else torch.zeros(table.num_rows, 0)


def _numbers(column: Any, where: str, fill: bool) -> Tensor:
    import pyarrow

    if _is_text(column.type):
        row, value = next((i, value) for i, value in enumerate(column.to_pylist()) if not _reads(value))
        raise ValueError(f"{where}: row {row} has {value!r}: give numbers, or name the column in data.categories.")
    try:
        values = column.cast(pyarrow.float64()).to_numpy()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{where} has the type {column.type}: give numbers.") from error
    gaps = np.isnan(values)
    if gaps.any() and not fill:
        raise ValueError(f"{where}: row {int(gaps.argmax())} has no value: fill it, or set data.missing=fill.")
    if gaps.all():
        raise ValueError(f"{where} has no values at all: leave the column out.")
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if np.isinf(narrow).any():
        row = int(np.isinf(narrow).argmax())
        raise ValueError(f"{where}: row {row} has {values[row]}: give finite numbers.")
    return torch.from_numpy(narrow)


def category_codes(
    tables: Mapping[str, Any], names: Sequence[str], where: Mapping[str, str], fill: bool, known: Sequence[Values] = ()
) -> tuple[dict[str, Tensor], list[Values]]:
    """(N, K) int64 for each table, and the values of each column, of which these are the places.

    The values are all that occur and those `known` of each column, sorted as texts, after None for a gap.
    """
    orders: list[Values] = []
    found: dict[str, list[Tensor]] = {key: [] for key in tables}
    for name, before in zip(names, known or [[]] * len(names), strict=True):
        texts = {key: [_text(value) for value in table[name].to_pylist()] for key, table in tables.items()}
        for key, column in texts.items():
            if None in column and not fill:
                row = column.index(None)
                raise ValueError(
                    f"{where[key]}, column {name}: row {row} has no value: fill it, or set data.missing=fill."
                )
        every = {text for column in (before, *texts.values()) for text in column if text is not None}
        orders.append([None, *sorted(every)])
        place = {text: i for i, text in enumerate(orders[-1])}
        for key, column in texts.items():
            found[key].append(torch.tensor([place[text] for text in column]))
    codes = {
        key: torch.stack(columns, 1) if columns else torch.zeros(tables[key].num_rows, 0, dtype=torch.int64)
        for key, columns in found.items()
    }
    return codes, orders


def _text(value: Any) -> str | None:
    return None if value is None or value != value else str(value)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_dictionary(kind)


def _reads(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
