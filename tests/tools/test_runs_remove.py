"""Only folders of runs and sweeps are removed, after a question, and none that is in use."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.distributed import worlds
from tests.tools.runs_on_disk import write_run
from trainer.distributed.launch.folder_lock import FolderLock, follow, is_held
from trainer.lr import ConfigError
from trainer.tools.runs.command import main
from trainer.tools.runs.listed import list_runs


@pytest.fixture
def outputs(tmp_path):
    """A run and a sweep of two."""
    write_run(tmp_path / "outputs" / "one", [], {"val/loss": 1.0})
    for i in range(2):
        write_run(tmp_path / "outputs" / "sweep" / str(i), [], {"val/loss": 1.0}, events=False)
    (tmp_path / "outputs" / "sweep" / "sweep.json").write_text(json.dumps({"jobs": []}))
    return tmp_path / "outputs"


def test_runs_and_sweeps_are_removed(outputs, capsys):
    main(["rm", str(outputs / "one"), str(outputs / "sweep"), "--yes"])
    assert list(outputs.iterdir()) == []
    assert f"removed {outputs / 'one'}, {outputs / 'sweep'} (3 runs, " in capsys.readouterr().out


def test_a_tune_is_removed_with_its_trainings(outputs):
    (outputs / "sweep").rename(outputs / "tune")
    (outputs / "tune" / "sweep.json").unlink()
    (outputs / "tune" / "command.json").write_text('{"budget": "10%", "of": "lr"}')
    main(["rm", str(outputs / "tune"), "--yes"])
    assert [path.name for path in outputs.iterdir()] == ["one"]


def test_without_a_terminal_it_needs_yes(outputs):
    with pytest.raises(ConfigError, match=r"remove .*one \(1 run, .*\)\? There is no terminal to ask on: add --yes"):
        main(["rm", str(outputs / "one")])
    assert (outputs / "one" / "result.json").exists()


@pytest.mark.parametrize(("answer", "left"), [("n", True), ("", True), ("yes", False), ("y", False)])
def test_on_a_terminal_it_asks(outputs, answer, left):
    controller, terminal = os.openpty()
    command = [sys.executable, "-m", "cadence", "runs", "rm", str(outputs / "one")]
    with subprocess.Popen(command, cwd=ROOT, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE) as process:
        os.close(terminal)
        os.write(controller, f"{answer}\n".encode())
        code = process.wait(100)
    seen = os.read(controller, 10000).decode()
    os.close(controller)
    assert code == 0
    assert "? [y/N]" in seen
    assert (outputs / "one" / "result.json").exists() == left


@pytest.mark.parametrize("name", ["notes", "project", "outputs", "link", "here", "file", "missing"])
def test_what_is_no_run_is_left_alone(outputs, tmp_path, name, monkeypatch):
    for folder, file in (("notes", "text.md"), ("project", "config.yaml"), ("here", "result.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text('{"status": "completed"}')
    (tmp_path / "link").symlink_to(outputs / "one")
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError) as refusal:
        main(["rm", str(outputs / "sweep"), str(tmp_path / name), "--yes"])
    assert sorted(tmp_path.rglob("*")) == before
    says = {
        "notes": "holds no run",
        "project": "is not the folder of a run, a sweep or a tune",
        "outputs": "is not the folder of a run, a sweep or a tune",
        "link": "is a link",
        "here": "lies in it",
        "file": "is not a folder",
        "missing": "is not a folder",
    }
    assert says[name] in str(refusal.value)


@pytest.mark.parametrize("held", ["sweep/1", "sweep"])
@pytest.mark.parametrize("asked", ["sweep", "sweep/1"])
def test_a_run_that_goes_on_is_left_alone_with_its_sweep(outputs, held, asked):
    with FolderLock(outputs / held) as lock:
        lock.acquire()
        with pytest.raises(ConfigError, match="still goes on: wait for its end"):
            main(["rm", str(outputs / "one"), str(outputs / asked), "--yes"])
    assert (outputs / "one" / "result.json").exists()
    assert len(list(outputs.rglob("result.json"))) == 3


def test_a_run_of_which_only_ranks_are_left_is_left_alone(outputs):
    with follow(outputs / "one"), pytest.raises(ConfigError, match="still goes on"):
        main(["rm", str(outputs / "one"), "--yes"])
    main(["rm", str(outputs / "one"), "--yes"])
    assert not (outputs / "one").exists()


def test_a_lock_of_another_process_counts(outputs):
    code = (
        "import sys, pathlib; from trainer.distributed.launch.folder_lock import FolderLock\n"
        f"lock = FolderLock(pathlib.Path({str(outputs / 'one')!r})); lock.acquire(); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(ConfigError, match="still goes on"):
            main(["rm", str(outputs / "one"), "--yes"])
        other.kill()
    main(["rm", str(outputs / "one"), "--yes"])  # the file of the killed process is there, and nobody holds it
    assert not (outputs / "one").exists()


def test_what_a_link_in_a_run_leads_to_stays(outputs, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kept").write_text("x")
    (outputs / "one" / "data").symlink_to(tmp_path / "data")
    main(["rm", str(outputs / "one"), "--yes"])
    assert (tmp_path / "data" / "kept").exists()


@pytest.mark.parametrize(("holder", "runs"), [("elsewhere", True), ("here", True), ("dead", False), ("odd", False)])
def test_on_a_file_system_without_locks_the_process_that_the_file_names_counts(outputs, holder, runs, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOTSUP, "no locks")

    here = socket.gethostname()
    held = {
        "elsewhere": {"host": "another", "pid": 1},
        "here": {"host": here, "pid": os.getpid()},
        "dead": {"host": here, "pid": 2**30},
        "odd": {"host": here, "pid": "1"},
    }
    (outputs / "one" / ".lock").write_text(json.dumps(held[holder]))
    monkeypatch.setattr("fcntl.flock", refuse)
    assert is_held(outputs / "one") == runs
    if runs:
        with pytest.raises(ConfigError, match="still goes on"):
            main(["rm", str(outputs / "one"), "--yes"])
    assert (outputs / "one" / "result.json").exists()


@pytest.mark.slow
def test_a_training_process_is_listed_as_running_and_cannot_be_removed(tmp_path):
    folder = tmp_path / "outputs" / "long"
    words = ["name=long", "trainer.accelerator=cpu", "trainer.threads=1"]
    words += ["trainer.duration=30000", "trainer.validate=50"]
    process = worlds.Script(ROOT / "train.py", words, tmp_path, os.environ | {"CADENCE_RUN_ID": ""})
    try:
        for _ in range(600):
            time.sleep(0.1)
            if (folder / "validations.jsonl").exists():
                break
        (run,) = list_runs([tmp_path])
        assert (run.state, run.total) == ("running", 30000)
        assert run.updates >= 50
        assert run.scores["val/loss"] is not None
        with pytest.raises(ConfigError, match="still goes on"):
            main(["rm", str(folder), "--yes"])
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=100)
    (run,) = list_runs([tmp_path])
    assert run.state == "interrupted"
    assert run.error.startswith("interrupted by SIGTERM at update ")
    main(["rm", str(folder), "--yes"])
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_removed(outputs, monkeypatch):
    writable = lambda path, mode: path != outputs / "one"  # noqa: E731
    monkeypatch.setattr(os, "access", writable)
    with pytest.raises(ConfigError, match=r"outputs/one is not removed: \S+outputs/one cannot be written: ask who"):
        main(["rm", str(outputs / "sweep"), str(outputs / "one"), "--yes"])
    assert (outputs / "sweep").exists()
