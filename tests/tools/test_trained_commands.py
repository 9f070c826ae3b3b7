"""`cadence test`, `predict` and `export` do what the loaded run does, and refuse mistakes in one line."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cadence.__main__ import COMMANDS
from tests.conftest import ROOT
from trainer.cli.command import COMMAND
from trainer.config.settings import settings_of
from trainer.lr import ConfigError
from trainer.run import run_in
from trainer.tools.trained import export_command, predict_command, score_command
from trainer.tools.trained.exporting import export
from trainer.tools.trained.loading import load

WORDS = (
    *("data=synthetic", "data.samples=128", "data.val_samples=40", "data.test_samples=56", "data.batch_size=16"),
    *("model.hidden=[8]", "trainer.duration=16", "trainer.validate=8"),
)


@pytest.fixture
def run(compose, tmp_path, monkeypatch):
    """A run that has been trained, in the working folder."""
    monkeypatch.chdir(tmp_path)
    run_in(tmp_path / "outputs" / "run", settings_of(compose(*WORDS)), list(WORDS), COMMAND)
    return load("outputs/run")


def test_scores_are_those_of_the_result_and_of_other_data(run, capsys):
    score_command.main(["outputs/run", "--json", "scores.json"])
    assert json.loads(Path("scores.json").read_text()) == run.result["test"]
    assert "best.ckpt, after update" in (told := capsys.readouterr().out)
    assert f"loss {run.result['test']['loss']:.6g}" in told
    score_command.main(["outputs/run", "--split", "val", "--which", "last"])
    assert f"loss {load('outputs/run', 'last').test('val')['loss']:.6g}" in capsys.readouterr().out
    score_command.main(["outputs/run", "data.test_samples=500", "--json", "more.json"])
    other = run.other_data("data.test_samples=500")
    inputs, targets = map(torch.cat, zip(*other.test_dataloader()))
    assert len(inputs) == 500
    assert json.loads(Path("more.json").read_text()) == pytest.approx(run.test((inputs, targets)), rel=1e-5)


def test_predictions_are_written_as_rows_arrays_and_tensors(run):
    expected = run.predict("test")
    probabilities, classes = expected.softmax(1).max(1)
    for name in ("out.csv", "out.npz", "out.pt"):
        predict_command.main(["outputs/run", name])
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert [int(row["sample"]) for row in rows] == list(range(56))
    assert [int(row["class"]) for row in rows] == classes.tolist()
    assert [float(row["probability"]) for row in rows] == probabilities.tolist()
    assert [[float(row[f"output_{i}"]) for i in range(10)] for row in rows] == expected.tolist()
    arrays, tensors = np.load("out.npz"), torch.load("out.pt", weights_only=True)
    assert torch.equal(tensors["output"], expected)
    assert np.array_equal(arrays["output"], expected.numpy())
    assert tensors.keys() == set(arrays.files) == {"class", "probability", "output"}


def test_other_data_is_named_by_its_option_and_must_fit(run, tmp_path):
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(
        "_target_: data.synthetic.Synthetic\nkind: classification\nfeatures: 32\nclasses: 10\n"
        "batch_size: 8\nsamples: 32\nval_samples: 8\ntest_samples: 24\nseed: ${seed}\n"
    )
    predict_command.main(["outputs/run", "out.pt", "data=mine", "--config-dir", "conf"])
    assert torch.load("out.pt")["output"].shape == (24, 10)
    for words, says in (
        (["data=digits"], "this data has in_features="),
        (["data.test_sample=3"], r"data.test_sample is not a setting of this run's data: did you mean test_samples"),
        (["model=mlp"], "model=mlp does not name data"),
        (["data=text"], r"data.path is not set: add data.path=VALUE"),
        (["data=text", "data.path=nowhere"], "nowhere"),
    ):
        with pytest.raises(ConfigError, match=says) as refusal:
            score_command.main(["outputs/run", *words])
        assert "\n" not in str(refusal.value)


def test_the_net_is_exported_and_nothing_is_written_over(run, capsys):
    export_command.main(["outputs/run", "net.safetensors"])
    assert capsys.readouterr().out.startswith("net.safetensors: ")
    for ask in (
        lambda: export_command.main(["outputs/run", "net.safetensors"]),
        lambda: predict_command.main(["outputs/run", "out.csv"]) or predict_command.main(["outputs/run", "out.csv"]),
        lambda: (
            score_command.main(["outputs/run", "--json", "s.json"])
            or score_command.main(["outputs/run", "--json", "s.json"])
        ),
    ):
        with pytest.raises(ConfigError, match="exists: name another file, or write over it with force"):
            ask()
    export_command.main(["outputs/run", "net.safetensors", "--force"])
    predict_command.main(["outputs/run", "out.csv", "--force"])


def test_what_cannot_be_done_is_refused(run):
    for ask, says in (
        (lambda: predict_command.main(["outputs/none", "out.csv"]), "there is no such folder"),
        (lambda: predict_command.main(["outputs/run", "out.xls"]), "choose one of .csv, .npz, .pt"),
        (lambda: predict_command.main(["outputs/run", "none/out.csv"]), "there is no folder none"),
        (lambda: predict_command.main(["outputs/run", "/proc/out.csv"]), "cannot be written"),
        (lambda: score_command.main(["outputs/run", "--split", "tests"]), "not a split: choose train, val, test"),
        (lambda: score_command.main(["outputs/run", "data.test_samples=0"]), "no test split|no samples|test_samples"),
    ):
        with pytest.raises(ConfigError, match=says):
            ask()


def test_a_csv_of_outputs_with_more_dimensions_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"output has the shape \[2, 3, 4\].*\.npz or \.pt"):
        predict_command.write_csv({"output": torch.zeros(2, 3, 4)}, tmp_path / "out.csv")
    predict_command.write_csv({"output": torch.tensor([[1.5], [2.5]])}, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().split() == ["sample,output", "0,1.5", "1,2.5"]


@pytest.mark.parametrize("name", ["test", "predict", "export"])
def test_help_has_an_example_and_needs_no_torch(name):
    code = (
        "import sys; sys.argv = ['cadence', '--help']; import importlib\n"
        f"try: importlib.import_module('{COMMANDS[name][0]}').main()\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert f"cadence {name} outputs/NAME" in done.stdout
    assert done.stdout.endswith("False\n")


class Rows(torch.nn.Module):
    """A net that takes one dictionary."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 2)

    def forward(self, rows):
        return self.layer(torch.cat([rows["numbers"], rows["more"]], 1))


@pytest.mark.parametrize("inputs", ["mapping", "pair"])
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_net_that_takes_one_dictionary_is_exported(suffix, inputs, tmp_path):
    if suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    net, rows = Rows().eval(), {"numbers": torch.randn(6, 3), "more": torch.randn(6, 2)}
    export(net, rows if inputs == "mapping" else (rows,), tmp_path / f"net{suffix}")
    if suffix == ".pt2":
        program = torch.export.load(tmp_path / "net.pt2").module()
        assert torch.allclose(program(rows), net(rows))


class Named(torch.nn.Module):
    """A net that takes parts of a batch by name."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 2)

    def forward(self, numbers, more):
        return self.layer(torch.cat([numbers, more], 1))


def test_a_net_takes_its_own_parts_of_a_batch_that_has_more(tmp_path):
    net, parts = Named().eval(), {"numbers": torch.randn(6, 3), "more": torch.randn(6, 2)}
    export(net, {"id": list("abcdef"), **parts, "target": torch.zeros(6)}, tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    assert torch.allclose(program(**parts), net(**parts))


def test_what_a_job_has_left_in_the_environment_does_not_end_a_score(run, monkeypatch):
    for name, value in {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "3", "SLURM_PROCID": "1", "SLURM_JOB_NAME": "x"}.items():
        monkeypatch.setenv(name, value)
    assert load("outputs/run").test() == run.result["test"]
