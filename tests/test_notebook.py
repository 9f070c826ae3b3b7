"""The notebook runs from its first cell to its last, and its stored outputs name no place of the machine."""

import json

import pytest

from tests.pages import DOCS

NOTEBOOK = json.loads((DOCS / "notebook.ipynb").read_text())
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow
def test_each_cell_runs(tmp_path):
    pytest.importorskip("nbclient", reason="nbclient is not installed, so that the notebook is not run")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed, so that the notebook is not run")
    from tests.notebook import executed

    cells = [cell for cell in executed(tmp_path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(CODE) + 1))
    for cell, stored in zip(cells, CODE, strict=True):
        assert [output.output_type for output in cell.outputs] == [one["output_type"] for one in stored["outputs"]]


def test_its_outputs_are_stored_and_name_no_place_of_a_machine():
    texts = [json.dumps(output.get("text", "")) for cell in CODE for output in cell["outputs"]]
    assert any("accuracy" in text for text in texts)
    assert any("image/png" in output.get("data", {}) for cell in CODE for output in cell["outputs"])
    assert not [text for text in texts if any(f"{place}/" in text for place in ("/tmp", "/root", "/home", "/work"))]
