"""The page on Python holds: its blocks run in their order, and do what the page says."""

import csv
import importlib
import re
import shlex
from pathlib import Path

import pytest

from cadence.__main__ import COMMANDS
from tests.pages import DOCS


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the blocks of the page have defined, run in an empty folder."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    defined = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        for block in blocks:
            exec(block, defined)
        (commands,) = re.findall(r"```bash\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
        for line in commands.splitlines():
            program, name, *words = shlex.split(line)
            assert program == "cadence"
            importlib.import_module(COMMANDS[name][0]).main(words)
        yield {**defined, "folder": Path.cwd()}


@pytest.mark.filterwarnings("ignore")
def test_the_run_of_the_page_is_loaded_scored_and_exported(page):
    run, folder = page["run"], page["folder"]
    assert run.test() == run.result["test"]
    assert page["outputs"].shape == (360, 10)
    assert {"net.safetensors", "net.pt2", "net.pt", "predictions.csv"} <= {path.name for path in folder.iterdir()}
    assert len((folder / "predictions.csv").read_text().splitlines()) == 361


@pytest.mark.filterwarnings("ignore")
def test_the_loop_of_the_page_has_the_planned_rate(page):
    assert page["scheduler"].last_epoch == 100
    assert page["optimizer"].param_groups[0]["lr"] == page["plan"].curve[100]


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_the_page_logs_the_planned_rates(page):
    with Path(page["trainer"].logger.experiment.metrics_file_path).open() as file:
        rates = [float(row["lr/all"]) for row in csv.DictReader(file)]
    assert rates == page["plan"].curve[:100].tolist()
