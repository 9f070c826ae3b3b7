"""TensorBoard is started on runs that are named by what differs between them."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

from tests.conftest import ROOT
from tests.pages import DOCS
from tests.tools.runs_on_disk import write_run
from trainer.lr import ConfigError
from trainer.tools.runs.command import main
from trainer.tools.runs.listed import list_runs
from trainer.tools.runs.tensorboard import LONGEST, names_of


@pytest.fixture
def started(monkeypatch):
    """What TensorBoard is called with and finds, in place of a server that does not end."""
    calls = []

    def call(words):
        place = words[words.index("--logdir") + 1]
        calls.append((words[1:3] + words[5:], EventMultiplexer().AddRunsFromDirectory(place).Reload().Runs()))
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    return calls


def test_runs_of_a_sweep_are_named_by_what_differs(tmp_path, started, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, lr in enumerate((0.01, 0.03)):
        write_run(Path("outputs/grid", str(i)), [f"optimizer.lr={lr}", "schedule=cosine"])
    write_run(Path("outputs/grid/2"), ["optimizer.lr=0.1", "schedule=cosine"], events=False)
    before = sorted(tmp_path.rglob("*"))
    page = (DOCS / "listing.md").read_text().splitlines()
    (line,) = (line for line in page if line.startswith("cadence runs tensorboard"))
    main([*shlex.split(line, comments=True)[2:], "--port", "7000"])
    ((words, found),) = started
    assert words == ["-m", "tensorboard.main", "--port", "7000"]
    assert sorted(found) == ["optimizer.lr=0.01", "optimizer.lr=0.03"]
    assert all("train/loss" in tags["scalars"] for tags in found.values())
    assert capsys.readouterr().out == "2 runs, named by what differs; Ctrl-C ends TensorBoard\n"
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [["seed=0"], ['data.path="../../x/\\\\x1b[2J:a,b"'], [f"model.note={'é' * 300}"]])
def test_alike_runs_and_foreign_words_give_names_that_a_folder_can_have(tmp_path, started, words):
    for name, more in (("a", words), ("b", words), ("c", [])):
        write_run(tmp_path / "s" / name, more)
    runs = list_runs([tmp_path / "s"])
    names = names_of(runs)
    assert len(set(names)) == 3
    assert all(Path(name).name == name and len(name) <= LONGEST and name.isprintable() for name in names)
    main(["tensorboard", str(tmp_path / "s")])
    assert len(started[0][1]) == 3


def test_a_name_that_is_cut_does_not_end_in_a_part_of_a_number(tmp_path):
    for name, length in (("a", 180), ("b", 60)):
        words = ["schedule=exponential", "schedule.gamma=0.99", f"trainer.duration={length}"]
        write_run(tmp_path / name, [f"model.note={'x' * 20}{name}", *words])
    for name in names_of(list_runs([tmp_path])):
        assert name.endswith((" ...", "=180", "=60"))


def test_a_folder_without_a_log_and_a_tensorboard_that_fails_are_told(tmp_path, monkeypatch):
    write_run(tmp_path / "s" / "0", [], events=False)
    with pytest.raises(ConfigError, match="no run in these folders has a TensorBoard log"):
        main(["tensorboard", str(tmp_path / "s")])
    write_run(tmp_path / "s" / "1", [])
    monkeypatch.setattr(subprocess, "call", lambda words: 1)
    with pytest.raises(ConfigError, match="ended with code 1"):
        main(["tensorboard", str(tmp_path / "s")])


def test_ctrl_c_ends_it_in_silence(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "s" / "0", [])
    monkeypatch.setattr(subprocess, "call", lambda words: signal.raise_signal(signal.SIGINT))
    main(["tensorboard", str(tmp_path / "s")])
    assert capsys.readouterr().out.count("\n") == 1


def test_sigterm_removes_the_temporary_folder(tmp_path):
    write_run(tmp_path / "s" / "0", [])
    stand_in = tmp_path / "tensorboard"
    stand_in.mkdir()
    (stand_in / "__init__.py").touch()
    (stand_in / "main.py").write_text("import sys, time\nprint(sys.argv, flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "cadence", "runs", "tensorboard", "s"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert "--logdir" in lines[1]
        assert len(list(tmp_path.glob("cadence-*"))) == 1
        process.terminate()
    assert process.returncode == 143
    assert not list(tmp_path.glob("cadence-*"))
