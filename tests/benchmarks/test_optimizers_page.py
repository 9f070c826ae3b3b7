"""The page of optimizers: its table is what was measured, and holds every optimizer."""

import math
import re
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.optimizers import command as optimizers
from benchmarks.optimizers import cost, trial
from benchmarks.optimizers.page import TIERS, page
from trainer.lr import ConfigError

PAGE = Path(__file__).parent.parent.parent / "docs" / "optimizers.md"


def rows(text):
    """The cells of every row, by the name of the optimizer."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    return {cells[0]: cells for cells in found if cells[0] not in ("optimizer", "---")}


@pytest.mark.sample(0)
def test_the_page_has_a_row_for_every_optimizer_and_each_beats_a_constant_guess():
    shown = rows(PAGE.read_text())
    assert set(shown) == set(trial.names())
    assert set(" ".join(TIERS.values()).split()) == set(trial.names())
    for name, cells in shown.items():
        assert float(cells[4]) < 0.8 * math.log(10), name
        assert trial.composed(f"optimizer={name}").optimizer._target_ == cells[1].strip("`")


@pytest.mark.sample(0)
def test_the_script_tries_a_grid_measures_and_writes_its_page(tmp_path, capsys):
    out = tmp_path / "deep" / "page.md"
    chosen = ["--only", "adamw", "muon", "--updates", "20", "--points", "1", "--rounds", "1", "--out", str(out)]
    optimizers.main(chosen)
    shown = rows(out.read_text())
    assert list(shown) == ["adamw", "muon"]
    assert (shown["adamw"][2], shown["adamw"][3], shown["adamw"][7]) == ("0.003", "0.003 to 0.003", "8.0")
    assert "[2/2] muon: loss" in capsys.readouterr().out
    assert f"`python benchmarks/optimizers/command.py {' '.join(chosen)}`" in " ".join(out.read_text().split())


def test_the_grid_goes_on_where_the_best_is_its_last(monkeypatch):
    def reached(tried, lr, updates, tell):
        tried.losses[float(f"{lr:.2g}")] = abs(math.log10(lr))

    monkeypatch.setattr(trial, "_train", reached)
    found = trial.search("adamw", 1, 3)
    assert found.best == pytest.approx(0.3)
    assert sorted(found.losses) == [0.00095, 0.003, 0.0095, 0.03, 0.095, 0.3]


def test_a_rate_that_diverges_is_no_best(monkeypatch):
    found = trial.Trial("sgd", "torch.optim.SGD")
    for lr in (0.1, 1e20):
        trial._train(found, lr, 20, lambda line: None)
    assert found.losses[1e20] == math.inf
    assert found.best == 0.1


def test_memory_counts_each_number_of_the_state():
    for name, expected in (("sgd", 0), ("momentum", 4), ("adamw", 8), ("ademamix", 12), ("dog", 4), ("lion", 4)):
        loop = cost.Loop(name, torch.nn.Sequential(torch.nn.Linear(64, 200), torch.nn.Linear(200, 10)))
        loop.advance(2)
        assert loop.bytes() == pytest.approx(expected, abs=0.01), name


def test_what_makes_no_sense_is_refused_in_one_line(tmp_path, python):
    for words, says in (
        (["--only", "adamx"], "is not an optimizer: choose from"),
        (["--points", "0"], "give at least 1"),
        (["--updates", "19"], "give at least 20"),
        (["--only", "sgd", "--updates", "20", "--points", "1", "--rounds", "1", "--out", "/proc/x/y"], "be written"),
    ):
        with pytest.raises(ConfigError, match=says):
            optimizers.main(words)
    told = subprocess.run([python, optimizers.__file__, "--help"], capture_output=True, text=True)
    assert told.returncode == 0
    assert re.search(r"\n    python benchmarks/optimizers/command.py --only", told.stdout)


def test_a_page_names_what_has_no_tier():
    found = trial.Trial("mine", "my.Mine", {0.1: 1.0}, {0.1: 0.5}, 1.0, 4.0)
    versions = {"python": "3", "torch": "2", "pytorch-optimizer": "4"}
    facts = {"machine": {"processor": "x", "threads": 1, "cores": 2, "versions": versions}, "command": "c"}
    assert "## More" in page([found], {**facts, "updates": 1, "rounds": 1, "base": 1e-3})
