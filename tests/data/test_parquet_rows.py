"""Rows of Parquet files are those of the table, each once in an epoch, and few row groups are in memory."""

from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

import data.parquet_rows as parquet_rows_module
from data.order import Layout, Order, Pick
from data.parquet_rows import KEPT, ParquetRows, RowGroups, in_sets
from data.reader import SampleError
from data.size import parquet_rows
from trainer.run import fit

ROWS, GROUP = 95, 8


def written(folder: Path, **more: Any) -> str:
    """Two files with rows numbered through, in groups of 8."""
    folder.mkdir(exist_ok=True)
    for file, (first, last) in enumerate(((0, 60), (60, ROWS))):
        numbers = np.arange(first, last)
        inputs = np.stack([numbers, numbers % 7, numbers % 3], axis=1).astype(np.float64)
        table = {"inputs": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(inputs.ravel()), 3)}
        table |= {"label": pyarrow.array(numbers % 3), "flag": pyarrow.array(numbers % 2 == 0)}
        table |= {name: values[first:last] for name, values in more.items()}
        parquet.write_table(pyarrow.table(table), folder / f"{file}.parquet", row_group_size=GROUP)
    return str(folder)


def module(path: str, **changes: Any) -> ParquetRows:
    return ParquetRows(**{"path": path, "batch_size": 10, "mixed": 3, "seed": 5, **changes})


def test_each_row_comes_once_in_an_epoch_and_otherwise_in_the_next(tmp_path: Path) -> None:
    given = module(written(tmp_path / "rows"), columns=["inputs", "label", "flag"])
    given.setup()
    assert parquet_rows(str(tmp_path / "rows")) == len(given.splits.train) == ROWS
    orders = []
    for epoch in (0, 1):
        order = given._order(given.splits.train).indices(epoch)
        picks = [Pick(epoch, part, 5) for part in order.split(10)]
        batches = list(given.splits.train.batches(picks))
        for batch, pick in zip(batches, picks):
            assert torch.equal(batch["inputs"][:, 0].long(), pick.indices)
            assert torch.equal(batch["label"], pick.indices % 3)
            assert torch.equal(batch["flag"], 1 - pick.indices % 2)
        orders.append(order.tolist())
        assert sorted(orders[-1]) == list(range(ROWS))
    assert orders[0] != orders[1]


def test_few_sets_are_in_memory_and_each_is_read_once_in_an_epoch(tmp_path: Path, monkeypatch: Any) -> None:
    given = module(written(tmp_path / "rows"))
    given.setup()
    source, read = given.splits.train, []
    first = source._read
    monkeypatch.setattr(source, "_read", lambda groups: read.append(tuple(groups)) or first(groups))
    order = Order(ROWS, 5, Layout(10), sampling=given._order(source)._sampling)
    for _ in source.batches(order.picks(0, order.updates_per_epoch)):
        assert len(source._sets) <= KEPT
    assert len(read) == len(set(read))
    assert sorted(group for one in read for group in one) == list(range(len(source.rows)))


def test_a_set_that_is_over_is_dropped_before_another_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    given = module(written(tmp_path / "rows"))
    given.setup()
    source, made, others = given.splits.train, WeakSet[Any](), []
    first = source._read

    def counted(groups: Any) -> Any:
        others.append(len(made))
        made.add(found := first(groups))
        return found

    monkeypatch.setattr(source, "_read", counted)
    order = Order(ROWS, 5, Layout(10), sampling=given._order(source)._sampling)
    for _ in source.batches(order.picks(0, 2 * order.updates_per_epoch)):
        pass
    assert len(others) > 6
    assert max(others) == KEPT - 1


def rows_of_an_epoch(path: str) -> list[int]:
    given = module(path)
    given.setup()
    order = given._order(given.splits.train).indices(0)
    batches = given.splits.train.batches(Pick(0, part, 5) for part in order.split(10))
    found = torch.cat([inputs[:, 0].long() for inputs, _ in batches])
    assert torch.equal(found, order)
    return found.tolist()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_files_that_were_read_leave_the_memory(tmp_path: Path, monkeypatch: Any) -> None:
    path, mapped = written(tmp_path / "rows"), []
    first = RowGroups._read

    def looked(source: RowGroups, groups: Any) -> Any:
        found = first(source, groups)
        mapped.append(Path("/proc/self/maps").read_text().count(path))
        return found

    monkeypatch.setattr(RowGroups, "_read", looked)
    rows_of_an_epoch(path)
    assert max(mapped) == 2  # each file once
    mapped.clear()
    monkeypatch.setattr(parquet_rows_module, "MAPPED", 0)
    rows_of_an_epoch(path)
    assert max(mapped) == 1


def test_files_are_read_where_they_cannot_be_mapped(tmp_path: Path, monkeypatch: Any) -> None:
    path, opened = written(tmp_path / "rows"), parquet.ParquetFile
    expected = rows_of_an_epoch(path)

    def unmapped(*given: Any, memory_map: bool = False, **options: Any) -> Any:
        if memory_map:
            raise OSError("Memory mapping file failed: No such device")
        return opened(*given, **options)

    monkeypatch.setattr(parquet, "ParquetFile", unmapped)
    assert rows_of_an_epoch(path) == expected


@pytest.mark.parametrize("rows", [[ROWS], [-1], [3, -1]])
def test_a_row_that_is_not_there_is_an_error(tmp_path: Path, rows: list[int]) -> None:
    given = module(written(tmp_path / "rows"))
    given.setup()
    list(given.splits.train.batches([Pick(0, torch.arange(8), 5)]))
    with pytest.raises(IndexError):
        list(given.splits.train.batches([Pick(0, torch.tensor(rows), 5)]))


def test_any_order_and_the_validation_give_the_rows_that_are_asked_for(tmp_path: Path) -> None:
    given = module(written(tmp_path / "rows"), val_path=str(tmp_path / "rows" / "1.parquet"))
    given.setup()
    picked = torch.randperm(ROWS)[:40]
    ((inputs, label),) = given.splits.train.batches([Pick(2, picked, 9)])
    assert torch.equal(inputs[:, 0].long(), picked)
    assert torch.equal(label, picked % 3)
    assert inputs.dtype == torch.float32
    (inputs, _), _ = given.splits.val.batches([Pick(0, torch.arange(20)), Pick(0, torch.arange(20, 35))])
    assert inputs[:, 0].tolist() == list(range(60, 80))


def test_sets_have_whole_groups() -> None:
    order = in_sets(30, 0, 1, rows=[10, 5, 10, 5], mixed=2)
    groups = torch.bucketize(order, torch.tensor([10, 15, 25]), right=True).tolist()
    border = next(i for i in range(31) if len(set(groups[:i])) == 2 and not set(groups[:i]) & set(groups[i:]))
    assert border in (10, 15, 20)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    texts, missing = ["a"] * ROWS, [None, *range(1, ROWS)]
    lists = [[1.0] * (1 + i % 2) for i in range(ROWS)]
    path = written(tmp_path / "rows", text=texts, missing=missing, lists=lists)
    for column, line in (
        ("text", "the column text has the type string"),
        ("missing", "1 values of the column missing are missing"),
        ("lists", "the lists of the column lists differ in length"),
    ):
        given = module(path, columns=[column])
        given.setup()
        with pytest.raises(SampleError, match=line):
            list(given.splits.train.batches([Pick(0, torch.arange(ROWS), 5)]))
    with pytest.raises(ValueError, match=r"data.path=.* has no column other, but inputs, label, flag"):
        module(path, label="other").setup()
    with pytest.raises(FileNotFoundError, match="data.path=nowhere is not a file"):
        module("nowhere").setup()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no .parquet file"):
        module(str(tmp_path / "empty")).setup()


def test_a_run_trains_on_row_groups(assembled: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "rows")
    words = ["data=parquet", f"data.path={path}", f"data.val_path={path}", "data.classes=3", "model.hidden=[8]"]
    run = assembled(*words, "trainer.duration=3ep", "data.batch_size=10", "optimizer.lr=0.01")
    fit(run)
    assert run.module.clock.t == 3 * (ROWS // 10)
