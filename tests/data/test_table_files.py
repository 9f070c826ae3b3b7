"""A table becomes tensors that statistics of the training rows alone have scaled; what does not fit names its row."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from data.table import Table
from trainer.checkpoint.io import checkpoint_path
from trainer.lr import ConfigError
from trainer.run import fit

COLOURS = ("red", "green", "blue")


def rows(count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    draw = np.random.default_rng(seed)
    made = []
    for i in range(count):
        height, colour = float(draw.normal(10, 3)), COLOURS[int(draw.integers(3))]
        made.append({"height": height, "count": i % 7, "colour": colour, "wet": bool(i % 2), "kind": "ba"[height > 10]})
    return made


def write(path: Path, made: list[dict[str, Any]]) -> str:
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(made), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(made[0]))
            writer.writeheader()
            writer.writerows(made)
    return str(path)


def table(path: str, **settings: Any) -> Table:
    module = Table(**{"path": path, "target": "kind", "batch_size": 8, **settings})
    module.setup()
    return module


def whole(module: Table) -> tuple[Any, torch.Tensor]:
    return module.splits.train.stored  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_numbers_are_standardised_by_the_training_rows_alone(tmp_path: Path, suffix: str) -> None:
    made = rows()
    module = table(write(tmp_path / f"t.{suffix}", made), inputs="dict", val_fraction=0.2, test_fraction=0.25)
    assert [len(part) for part in module.splits] == [33, 12, 15]
    numbers = whole(module)[0]["numbers"].double()
    assert numbers.mean(0).abs().max() < 1e-6
    assert (numbers.std(0, correction=0) - 1).abs().max() < 1e-5
    raw = table(str(tmp_path / f"t.{suffix}"), inputs="dict", standardize=False, val_fraction=0.2, test_fraction=0.25)
    before, after = (one.splits.test.stored[0]["numbers"].double().numpy() for one in (raw, module))
    of_training = whole(raw)[0]["numbers"].double().numpy()
    assert np.allclose(after, (before - of_training.mean(0)) / of_training.std(0), atol=1e-5)
    heights = sorted(value for part in raw.splits for value in part.stored[0]["numbers"][:, 0].tolist())
    assert np.allclose(heights, sorted(row["height"] for row in made), rtol=1e-6)


def test_a_tensor_has_numbers_and_one_column_for_each_value_of_a_category(tmp_path: Path) -> None:
    made = rows()
    module = table(write(tmp_path / "t.csv", made), standardize=False, val_fraction=0, test_fraction=0)
    inputs, targets = whole(module)
    assert module.shape == {"in_features": 2 + 3 + 2, "classes": 2}
    assert inputs.shape == (60, 7)
    for row, found, target in zip(made, inputs.tolist(), targets.tolist()):
        assert found[:2] == pytest.approx([row["height"], row["count"]], rel=1e-6)
        assert found[2:5] == [float(row["colour"] == name) for name in sorted(COLOURS)]
        assert found[5:] == [float(not row["wet"]), float(row["wet"])]
        assert target == "ab".index(row["kind"])
    assert module.splits[1:] == (None, None)


def test_a_category_that_no_training_row_has_is_0_or_no_column(tmp_path: Path) -> None:
    test = write(tmp_path / "test.csv", [{**row, "colour": "pink"} for row in rows(5, 1)])
    train = write(tmp_path / "t.csv", rows())
    module = table(train, inputs="dict", test_path=test)
    assert module.shape == {"numbers": 2, "categories": [4, 3], "classes": 2}
    assert module.splits.test.stored[0]["categories"][:, 0].tolist() == [0] * 5  # type: ignore[union-attr]
    assert set(whole(module)[0]["categories"][:, 0].tolist()) == {1, 2, 3}
    assert len(module.splits.train) == 54
    flat = table(train, test_path=test).splits.test.stored[0]  # type: ignore[union-attr]
    assert flat[:, 2:5].sum() == 0


def test_categories_that_a_file_writes_otherwise_are_the_same_or_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "t.csv", [{**row, "colour": i % 3} for i, row in enumerate(rows())])
    test = write(tmp_path / "test.csv", [{**row, "colour": c} for row, c in zip(rows(3, 1), ("2", "1", "x"))])
    module = table(train, categories=["colour"], inputs="dict", test_path=test)
    found = module.splits.test.stored[0]["categories"][:, 0]  # type: ignore[union-attr]
    assert found.tolist() == [3, 2, 0], "read as texts, 0, 1 and 2 are the categories 1, 2 and 3"
    halves = write(tmp_path / "halves.parquet", [{**row, "colour": 1.0} for row in rows(3, 1)])
    whole_numbers = write(tmp_path / "t.parquet", [{**row, "colour": i % 3} for i, row in enumerate(rows())])
    with pytest.raises(
        ValueError, match="column colour holds integers in data.path=.* numbers in data.test_path=.*alike"
    ):
        table(whole_numbers, categories=["colour"], test_path=halves)
    later = Table(path=halves, target="kind", categories=["colour"], batch_size=8)
    later.load_state_dict(table(whole_numbers, categories=["colour"]).state_dict())
    with pytest.raises(ValueError, match="integers in the data of the trained run: write it alike"):
        later.setup()


def test_classes_that_a_file_writes_as_numbers_are_those_of_the_other(tmp_path: Path) -> None:
    train = write(tmp_path / "t.csv", [{**row, "kind": "12x"[i % 3]} for i, row in enumerate(rows())])
    module = table(train, test_path=write(tmp_path / "test.csv", [{**row, "kind": 2} for row in rows(4, 1)]))
    assert (module.class_names, module.splits.test.targets.tolist()) == (["1", "2", "x"], [1] * 4)  # type: ignore


def test_a_run_does_not_go_on_with_another_file(assembled: Any, tmp_path: Path) -> None:
    words = ("data=table", "data.target=kind", "data.batch_size=8", "model.hidden=[4]", "trainer.duration=12")
    words = (*words, "logger=none", "trainer.validate=6", "trainer.keep=0", f"data.path={tmp_path / 't.csv'}")
    write(tmp_path / "t.csv", rows())
    whole_run = assembled(*words)
    fit(whole_run)
    path = checkpoint_path(whole_run.checkpointing.folder, 6)
    fit(assembled(*words, resumed=path, folder="on"))
    for changed, told in (
        (
            {"height": lambda value: value + 1},
            r"mean\[0\] is .*, and was .* when the checkpoint was written: bring that",
        ),
        ({"colour": lambda value: value.replace("red", "pink")}, r"seen\[0\]\[2\] is 'pink', and was 'red'"),
        ({"kind": lambda value: value.replace("b", "c")}, r"classes\[1\] is 'c', and was 'b'"),
    ):
        ((name, change),) = changed.items()
        write(tmp_path / "t.csv", [{**row, name: change(row[name])} for row in rows()])
        with pytest.raises(ConfigError, match=f"data: {told}"):
            assembled(*words, resumed=path, folder="other")


def test_columns_may_be_chosen_and_numbers_be_categories(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", rows())
    module = table(path, numbers=["height"], categories=["count"], inputs="dict")
    assert module.shape == {"numbers": 1, "categories": [8], "classes": 2}
    assert table(path, numbers=[], categories=["colour"]).shape["in_features"] == 3
    assert table(path, categories=[]).shape["in_features"] == 2


def test_regression_has_one_float_for_each_row(tmp_path: Path) -> None:
    made = rows()
    module = table(write(tmp_path / "t.csv", made), target="height", kind="regression", val_fraction=0, test_fraction=0)
    assert module.shape == {"in_features": 1 + 3 + 2 + 2, "classes": 1}
    assert np.allclose(whole(module)[1][:, 0], [row["height"] for row in made])
    assert whole(module)[1].shape == (60, 1)


def test_gaps_are_filled_with_the_training_mean_where_that_is_set(tmp_path: Path) -> None:
    made = rows()
    made[3]["height"], made[4]["colour"] = None, None
    path = write(tmp_path / "t.csv", made)
    module = table(path, missing="fill", inputs="dict", val_fraction=0, test_fraction=0)
    stored = whole(module)[0]
    assert stored["numbers"][3, 0].abs() < 1e-6
    assert stored["categories"][4, 0] == 1  # a gap is the first value
    known = np.array([row["height"] for row in made if row["height"] is not None])
    scale = np.sqrt(((known - known.mean()) ** 2).sum() / 60)
    assert stored["numbers"][0, 0].item() == pytest.approx((made[0]["height"] - known.mean()) / scale, rel=1e-5)


def test_folds_have_statistics_of_their_own_and_even_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", rows(100))
    for fold in range(4):
        module = table(path, inputs="dict", folds=4, fold=fold)
        assert (len(module.splits.train), len(module.splits.val)) == (90 - 22 - (fold < 2), 22 + (fold < 2))
        assert whole(module)[0]["numbers"].double().mean(0).abs().max() < 1e-6
        share = (
            module.splits.val.targets.double().mean()
            - torch.cat([p.targets for p in module.splits[:2]]).double().mean()
        )
        assert share.abs() < 0.05


def refused(told: str, path: str, **settings: Any) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=told) as error:
        table(path, **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"height": None}, "column height: row 7 has no value: fill it, or set data.missing=fill"),
        ({"height": "inf"}, "column height: row 7 has inf: give finite"),
        ({"height": "tall"}, "column height: row 7 has 'tall': give numbers, or name the column in data.categories"),
        ({"colour": None}, "column colour: row 7 has no value"),
        ({"kind": None}, "column kind: row 7 has no label"),
        ({"kind": "a "}, "column kind: the classes 'a' and 'a ' differ only in spaces: write them in one way"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_with_its_row(tmp_path: Path, change: dict, told: str) -> None:
    made = rows()
    made[7] |= change
    named = {"numbers": ["height", "count"]} if "tall" in change.values() else {}
    refused(rf"data.path=.*t.csv, {told}", write(tmp_path / "t.csv", made), **named)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (lambda i: i % 3 + 1, "the label 3: give 0 to 2, since classes are counted from 0"),
        (lambda i: -100 if i == 7 else i % 2, "row 7 has the label -100"),
        (lambda i: 1, "t.csv, column kind: all rows have the class 1: give two or more."),
        (lambda i: "cat", "t.csv, column kind: all rows have the class 'cat': give two or more."),
        (lambda i: i % 2 + 0.5, "row 0 has 0.5, which is no class: .* set data.kind=regression task=regression"),
    ],
)
def test_targets_that_are_no_classes_are_refused_with_their_row(tmp_path: Path, labels: Any, told: str) -> None:
    refused(told, write(tmp_path / "t.csv", [{**row, "kind": labels(i)} for i, row in enumerate(rows())]))


def test_a_file_that_is_none_and_columns_that_are_not_there_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", rows())
    refused("data.path=.*none.csv is not a file", str(tmp_path / "none.csv"))
    refused("data.test_path=.*none.csv is not a file", path, test_path=str(tmp_path / "none.csv"))
    refused("has no column kin: its columns are height, count", path, target="kin")
    refused("has no column weight", path, numbers=["weight"])
    refused(
        "column count is named twice in data.numbers, data.categories and data.target",
        path,
        numbers=["count"],
        categories=["count"],
    )
    (tmp_path / "semicolons.csv").write_text("a;kind\n1;x\n")
    refused("has ';' between its columns: write it with commas", str(tmp_path / "semicolons.csv"))
    (tmp_path / "twice.csv").write_text("a,a,kind\n1,2,x\n")
    refused("has several columns a: rename them", str(tmp_path / "twice.csv"))
    refused("leave nothing of 60 rows to train on", path, val_fraction=0.5, test_fraction=0.5)
    refused("data.val_fraction=1.5", path, val_fraction=1.5)
    (tmp_path / "empty.csv").write_text("a,kind\n")
    refused("empty.csv has no rows", str(tmp_path / "empty.csv"))
    (tmp_path / "bad.parquet").write_text("no table")
    refused("bad.parquet cannot be read as a table", str(tmp_path / "bad.parquet"))
    (tmp_path / "uneven.csv").write_text("a,kind\n1,2\n1,2,3\n")
    refused("uneven.csv cannot be read as a table", str(tmp_path / "uneven.csv"))
    (tmp_path / "other.csv").write_text("a;b\n1,5;2\n")
    refused("other.csv .*Expected 1 columns, got 2: 1,5;2: write it with commas", str(tmp_path / "other.csv"))
    parquet.write_table(pyarrow.table({"kind": ["a"], "list": [[1, 2]]}), tmp_path / "list.parquet")
    refused("column list has the type list", str(tmp_path / "list.parquet"))
    arrow_csv.write_csv(pyarrow.table({"kind": ["a", "b"]}), tmp_path / "alone.csv")
    refused("no column beside the target kind", str(tmp_path / "alone.csv"))


def test_a_table_trains_by_its_config(assembled, tmp_path: Path) -> None:
    from trainer.run import evaluate, fit

    path = write(tmp_path / "t.csv", rows(600))
    words = ("data=table", f"data.path={path}", "data.target=kind", "data.sampling=balanced", "optimizer.lr=0.01")
    parts = assembled(*words, "trainer.duration=20ep", "logger=none", "trainer.validate=5ep")
    fit(parts)
    assert evaluate(parts)["accuracy"] > 0.9


def test_a_column_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes(b"height,colour,kind\n" + "1.0,grün,a\n2.0,rot,b\n".encode("latin-1") * 20)
    with pytest.raises(ValueError, match="latin.csv: column colour is not UTF-8 text: convert the file"):
        table(str(path))


def test_the_columns_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", rows())
    assert table(path).notes == ["numbers height, count; categories colour, wet; target kind"]
    assert table(path, numbers=["count"], categories=[]).notes == ["numbers count; target kind"]
    many = write(tmp_path / "many.csv", [{**{f"x{i}": i + j for i in range(12)}, "kind": j % 2} for j in range(30)])
    assert table(many).notes == ["numbers x0, x1, x2, x3, x4, x5, x6, x7 and 4 more; target kind"]
