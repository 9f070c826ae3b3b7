"""Rows of a table are predicted by a trained run also where they have no target; their classes are told by name."""

import csv
from pathlib import Path

import pytest
import torch

from trainer.cli.command import COMMAND
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.run import run_in
from trainer.tools.trained import predict_command, score_command
from trainer.tools.trained.loading import load

KNOWN = [(x, "ABC"[x % 3], "up" if x > 0 else "down") for x in range(-40, 41)]
NEW = [(7, "A", "up"), (-3, "B", "down"), (11, "D", "up"), (0, "C", "down"), (25, "A", "up")]
LABELLED = {
    "names": {"up": "up", "down": "down"},
    "integers": {"up": 1, "down": 0},
    "numbers": {"up": 2.5, "down": -1.5},
}


class ByName(torch.nn.Module):
    """A net with embeddings, for rows as dictionaries."""

    def __init__(self, numbers, categories, classes):
        super().__init__()
        self.embeddings = torch.nn.ModuleList(torch.nn.Embedding(size, 2) for size in categories)
        self.head = torch.nn.Linear(numbers + 2 * len(categories), classes)

    def forward(self, rows):
        codes = [embed(column) for embed, column in zip(self.embeddings, rows["categories"].T)]
        return self.head(torch.cat([rows["numbers"], *codes], 1))


def write(name, rows, header="x,city,y"):
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([header.split(","), *rows])


@pytest.fixture(params=[(kind, inputs) for kind in LABELLED for inputs in ("tensor", "dict")], ids="-".join)
def run(request, compose, tmp_path, monkeypatch):
    """A run that has been trained on a table, in a folder with new rows, with and without targets."""
    monkeypatch.chdir(tmp_path)
    kind, inputs = request.param
    values = LABELLED[kind]
    write("known.csv", [(*row, values[target]) for *row, target in KNOWN])
    write("new.csv", [(*row, values[target]) for *row, target in NEW])
    write("bare.csv", [row for *row, _ in NEW], "x,city")
    write("gaps.csv", [(*row, None) for *row, _ in NEW])
    words = ["data=table", "data.path=known.csv", "data.target=y", "data.batch_size=8", f"data.inputs={inputs}"]
    words += ["trainer.duration=16", "data.samples=65"]
    words += ["task=regression", "data.kind=regression"] if kind == "numbers" else ["data.sampling=balanced"]
    net = [
        "model=own",
        "model._target_=tests.tools.test_predicted_rows.ByName",
        "+model._partial_=true",
        "allow=[tests]",
    ]
    words += net if inputs == "dict" else ["model.hidden=[4]"]
    run_in(tmp_path / "run", settings_of(compose(*words)), words, COMMAND)
    return load("run", allow=["tests"])


def predicted(name, *words):
    predict_command.main(["run", name, *words, "allow=tests"])
    return Path(name).read_bytes()


def test_rows_without_targets_are_predicted_as_those_with_them(run):
    expected = predicted("out.csv", "data.test_path=new.csv")
    assert expected.count(b"\n") == 1 + len(NEW)
    assert predicted("test.csv", "data.test_path=bare.csv") == expected
    assert predicted("path.csv", "data.path=bare.csv") == expected  # all its rows
    assert predicted("gaps_out.csv", "data.path=gaps.csv") == expected
    assert predicted("both.csv", "data.path=bare.csv", "data.test_path=bare.csv") == expected
    assert predicted("val.csv", "data.val_path=bare.csv", "--split", "val") == expected
    header, *rows = csv.reader(expected.decode().splitlines())
    assert ("class_name" in header) == bool(run.class_names)
    for row in map(dict, (zip(header, row) for row in rows)):
        assert row.get("class_name") == (run.class_names[int(row["class"])] if run.class_names else None)


def test_scores_and_training_need_the_targets(run):
    for key in ("path", "test_path"):
        with pytest.raises(ConfigError, match=rf"data.{key}=bare.csv has no column y: its columns are x, city"):
            score_command.main(["run", f"data.{key}=bare.csv", "allow=tests"])
    write("lost.csv", [["A"]], "city")
    with pytest.raises(ConfigError, match=r"data.path=lost.csv has no column x"):
        predicted("out.csv", "data.path=lost.csv")
