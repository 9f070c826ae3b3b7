"""A cell of a CSV is never a formula, and a number stays one."""

import csv
import json

import pytest
import torch

from tests.tools.runs_on_disk import write_run
from trainer.tools.report.command import save_tables
from trainer.tools.report.runs import find_runs
from trainer.tools.report.study import Study
from trainer.tools.trained.predict_command import write_csv
from trainer.tools.writable import plain_cell

FORMULAS = ["=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(1)", "\t=1", "\r=1", "＝1", " =1", "\t @x"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_run_begins_with_an_apostrophe(text):
    assert plain_cell(text) == f"'{text.strip(chr(13))}"
    assert "\r" not in plain_cell(f"a\r{text}")


@pytest.mark.parametrize("value", [-1.5, 3, True, None, "", "plain", "a=b", "-0.5", "+1e-3", "-inf", "1e5"])
def test_numbers_and_plain_texts_stay(value):
    assert plain_cell(value) is value


def test_the_tables_of_a_report_hold_no_formula(tmp_path):
    for number, text in enumerate(FORMULAS):
        folder = write_run(tmp_path / "s" / str(number), [f"optimizer.kind='{text}'"], {"val/loss": -0.5 - number})
        result = json.loads((folder / "result.json").read_text())
        result["metrics"]["=cmd"] = 1.0
        (folder / "result.json").write_text(json.dumps(result | {"status": "completed"}))
    save_tables(Study(find_runs(tmp_path / "s"), "val/loss"), tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        head, *rows = list(csv.reader(file))
    assert "'=cmd" in head
    assert not [cell for cell in head if cell[:1] in "=+-@\t\r"]
    for row in rows:
        for cell in row:
            assert cell[:1] not in ("=", "+", "@", "\t", "\r"), cell
            assert not cell.startswith("-") or float(cell) < 0
    assert [float(row[head.index("val/loss")]) for row in rows] == [-0.5 - number for number in range(len(FORMULAS))]


def test_predictions_hold_no_formula(tmp_path):
    write_csv({"=cmd": torch.tensor([-1.5, 2.0])}, tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text().splitlines() == ["sample,'=cmd", "0,-1.5", "1,2.0"]
