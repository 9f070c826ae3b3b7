"""Run docs/notebook.ipynb and store its outputs again:

python tests/notebook.py

It runs in an empty folder; the name of that folder is left out of what it prints.
"""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_output

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook after a run in a folder, without what differs from one machine to another."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | {"PYTHONPATH": str(ROOT)})
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.outputs = stored(cell.outputs, f"{folder}/")
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def stored(outputs: list[nbformat.NotebookNode], place: str) -> list[nbformat.NotebookNode]:
    """Pictures, and all text between two of them as one output without colours and without `place`."""
    kept: list[nbformat.NotebookNode] = []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            kept.append(new_output("display_data", data={"image/png": data["image/png"]}))
            continue
        text = re.sub(r"\x1b\[[0-9;]*m| +$", "", output.get("text") or data["text/plain"], flags=re.MULTILINE)
        if not kept or kept[-1].output_type != "stream":
            kept.append(new_output("stream", name="stdout", text=""))
        kept[-1].text += text.replace(place, "")
    return kept


if __name__ == "__main__":
    with TemporaryDirectory() as name:
        nbformat.write(executed(Path(name).resolve()), NOTEBOOK)
