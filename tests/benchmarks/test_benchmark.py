"""The benchmark compares equal work, or refuses: how long anything takes is asserted nowhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import benchmark, lr, report, updates
from benchmarks.loops import PEAK_LR, Outcome, Spent, Work, bare, prove
from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError

SCRIPT = Path(benchmark.__file__)


def test_help_shows_an_example_to_copy(python):
    told = subprocess.run([python, SCRIPT, "--help"], capture_output=True, text=True)
    assert told.returncode == 0
    assert "\n    python benchmarks/benchmark.py " in told.stdout


def measured(tmp_path, *arguments):
    benchmark.main([*arguments, "--out", str(tmp_path / "deep" / "out.json")])
    return json.loads((tmp_path / "deep" / "out.json").read_text())


@pytest.mark.sample(0)
def test_updates_are_measured_in_every_loop_that_is_installed_and_told_why_not_in_the_others(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "benchmarks.huggingface", raising=False)
    found = measured(tmp_path, "updates", "--updates", "20", "--rounds", "2")
    assert found["updates"] == 20
    assert list(found["rows"]) == ["bare", "cadence", "unlogged", "lightning", "lightning_sparse"]
    assert all(len(row["rounds_us"]) == 2 for row in found["rows"].values())
    assert found["rows"]["bare"]["ratio"] == 1
    assert "transformers" in found["skipped"]["transformers"]
    assert "skipped" in capsys.readouterr().out


@pytest.mark.sample(0)
def test_transformers_does_the_same_work_where_it_is_installed(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    found = measured(tmp_path, "updates", "--updates", "20", "--rounds", "1", "--variants", "transformers")
    assert list(found["rows"]) == ["bare", "transformers"]


def test_the_machine_the_versions_and_the_command_are_kept(tmp_path):
    where = measured(tmp_path, "--updates", "2", "--rounds", "1", "--variants", "bare")["machine"]
    assert where["versions"]["torch"] == torch.__version__
    assert where["threads"] == torch.get_num_threads() == 1
    assert {"processor", "cores", "load", "system", "command"} <= set(where)


@pytest.mark.sample(0)
def test_the_gpt_is_measured_block_by_block_beside_a_bare_loop_that_ends_with_the_same_weights(tmp_path):
    text = tmp_path / "a, text=1.txt"
    text.write_text("to be or not to be, that is the question. " * 100)
    for full in ([], ["--full"]):
        found = measured(tmp_path, "gpt", "--data", str(text), "--updates", "20", "--block", "5", *full)
        assert [len(row["rounds_us"]) for row in found["rows"].values()] == [4, 4]
        assert found["val_loss"] < 10
        assert set(found["seconds"]) == {"bare", "cadence", "cadence_with_validation"}


@pytest.mark.sample(0)
@pytest.mark.slow
def test_two_processes_are_measured_beside_bare_ddp_that_ends_with_the_same_weights(tmp_path, python):
    words = ["ddp", "--block", "5", "--updates", "10", "--out", str(tmp_path / "out.json")]
    done = subprocess.run([python, SCRIPT, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert set(found["rows"]) == {"cadence", "bare", "alone, 1 core", "alone, 2 cores"}
    assert found["updates"] == 10


@pytest.mark.sample(0)
def test_one_evaluation_is_measured_beside_the_steps_of_peers(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    found = measured(tmp_path, "lr", "--updates", "200", "--rounds", "2", "--planned", "1000")
    assert list(found["rows"]) == ["cadence", "cadence_own", "cadence_written", "torch"]
    assert all(len(row["rounds_us"]) == 2 for row in found["rows"].values())
    assert found["rows"]["cadence"]["ratio"] == 1
    assert len(found["planned"]["plan_s"]) == len(found["planned"]["lint_s"]) == 2
    told = capsys.readouterr().out
    assert "plan of 1,000 updates" in told
    assert "transformers cosine: skipped" in told


def test_a_peer_is_compared_where_it_draws_the_same_curve():
    makers, _ = lr.available(1000)
    lr.agree(1000, makers)
    with pytest.raises(RuntimeError, match="torch has .* another curve"):
        lr.agree(1000, {"torch": lambda made: torch.optim.lr_scheduler.ExponentialLR(made, 0.999)})


def test_a_loop_that_does_other_work_is_not_compared():
    def lazy(work, folder):
        spent, net = bare(work, folder)
        next(net.parameters()).data[0, 0] += 1e-7
        return Outcome(spent, net)

    with pytest.raises(RuntimeError, match="lazy ends with other weights"):
        updates.measure(Work.of(3, 1), {"bare": bare, "lazy": lazy}, rounds=1)


@pytest.mark.parametrize(
    ("steps", "factor", "complaint"),
    [((0, 1, 2, 3), 1.0, None), ((0, 1, 3), 1.0, "3 times in 4 updates"), ((0, 1, 2, 3), 1 + 1e-6, "not the rate")],
)
def test_a_log_that_lacks_an_update_or_holds_another_rate_is_no_proof(tmp_path, steps, factor, complaint):
    work, log = Work.of(4, 1), TensorBoard(str(tmp_path))
    rates = [factor * PEAK_LR * work.factor(t) for t in steps]
    columns = {"train/loss": [1.0] * len(steps), "lr/decay": rates, "lr/no_decay": rates}
    log.log_updates(steps, [0.0] * len(steps), columns)
    log.close()
    if complaint is None:
        prove(work, tmp_path)
    else:
        with pytest.raises(RuntimeError, match=complaint):
            prove(work, tmp_path)


def test_a_ratio_is_one_of_medians_and_its_spread_one_of_rounds():
    ours, theirs = ([Spent(wall * 1e-6, wall * 1e-6) for wall in walls] for walls in ((2, 9, 4), (1, 2, 4)))
    row = report.summary(ours, theirs)
    assert [round(row[key], 9) for key in ("median_us", "min_us", "max_us")] == [4, 2, 9]
    assert [round(row[key], 9) for key in ("ratio", "ratio_min", "ratio_max", "ratio_cpu")] == [2, 1, 4.5, 2]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--updates", "1"], "--updates=1 is too few"),
        (["lr", "--updates", "20"], "--updates=20 is too few: give at least 100"),
        (["lr", "--planned", "1"], "--planned=1 is too few"),
        (["--rounds", "0"], "--rounds=0 is too few"),
        (["--threads", "0"], "--threads=0 is too few"),
        (["gpt"], "--data is not set"),
        (["gpt", "--data", "none.txt", "--updates", "20", "--block", "7"], "--block=7 does not fit"),
        (["ddp", "--block", "4"], "--block=4 does not fit"),
        (["ddp", "--block", "10", "--updates", "15"], "--block=10 does not fit"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, complaint):
    with pytest.raises(ConfigError, match=complaint):
        benchmark.main(arguments)
