"""A folder has one owner: a second one is refused and told who holds it; the lock goes with its holder."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tests.distributed.worlds import ROOT
from trainer.distributed.launch import folder_lock
from trainer.distributed.launch.folder_lock import LOCK, FolderLock, follow, missing_folders, remove_empty
from trainer.lr import ConfigError

HOLD = """
import os, sys, time
from pathlib import Path
from trainer.distributed.launch.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
lock.acquire()
if sys.argv[2:] == ["worker"]:  # as a worker of a data loader
    if os.fork() == 0:
        time.sleep(60)
if sys.argv[2:] == ["program"]:
    import subprocess
    subprocess.Popen(["sleep", "60"])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the folder; all that it has started is killed at the end."""
    running = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path / "run"), *words],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in running:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def quick(monkeypatch):
    """Wait for nobody for long."""
    for name in ("AT_ONCE", "ENDING", "PREDECESSOR", "RANKS"):
        monkeypatch.setattr(folder_lock, name, 0.2)


def test_a_second_owner_is_refused_in_one_line_that_names_the_first(holder, tmp_path, quick):
    pid = holder().pid
    with FolderLock(tmp_path / "run") as lock, pytest.raises(ConfigError) as refusal:
        lock.acquire()
    line = str(refusal.value)
    assert line.startswith(f"{tmp_path}/run belongs to a run that still runs: process {pid} on {socket.gethostname()} ")
    assert "\n" not in line
    assert (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("words", [(), ("worker",), ("program",)])
def test_the_lock_goes_with_a_killed_holder_whatever_it_has_started_and_its_file_with_the_next(holder, tmp_path, words):
    process = holder(*words)
    os.kill(process.pid, signal.SIGKILL)
    begun = time.monotonic()
    with FolderLock(tmp_path / "run") as lock:
        lock.acquire()
        assert time.monotonic() - begun < 5
        assert lock.holder()["pid"] == os.getpid()
    assert list((tmp_path / "run").iterdir()) == []


def test_one_process_has_no_second_lock_and_a_released_one_is_free(tmp_path, quick):
    with FolderLock(tmp_path) as first:
        first.acquire()
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
            FolderLock(tmp_path).acquire()
    with FolderLock(tmp_path) as again:
        again.acquire()


def test_of_many_at_once_one_has_the_folder_also_while_the_file_is_made_and_removed(tmp_path):
    context = multiprocessing.get_context("fork")
    inside, most = context.Value("i", 0), context.Value("i", 0)
    processes = [context.Process(target=_enter_often, args=(tmp_path / "run", inside, most)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert most.value == 1


def _enter_often(folder, inside, most):
    taken, end = 0, time.monotonic() + 30
    while taken < 20 and time.monotonic() < end:
        lock = FolderLock(folder)
        if lock.acquired():
            with inside.get_lock():
                inside.value += 1
                most.value = max(most.value, inside.value)
            time.sleep(0.001)
            with inside.get_lock():
                inside.value -= 1
            taken += 1
        lock.release()
        remove_empty([folder])
    sys.exit(0 if taken == 20 else 1)


def test_the_same_job_waits_for_the_start_before_it_and_says_so(holder, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    process = holder()
    monkeypatch.setattr(folder_lock, "AT_ONCE", 0.2)
    with pytest.raises(ConfigError, match="still runs"):
        FolderLock(tmp_path / "run").acquire()  # another step of the job
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    waiting = multiprocessing.get_context("fork").Process(target=_acquire, args=(tmp_path / "run",))
    waiting.start()
    time.sleep(1)
    assert waiting.is_alive()
    process.kill()
    waiting.join(10)
    assert waiting.exitcode == 0
    assert f"still belongs to process {process.pid} on " in capfd.readouterr().err


def _acquire(folder):
    FolderLock(folder).acquire()


def test_ranks_that_outlive_rank_zero_are_waited_for(tmp_path, quick, capfd):
    with follow(tmp_path), FolderLock(tmp_path) as lock:
        with pytest.raises(ConfigError, match="ranks of an earlier start still run"):
            lock.acquire()
        assert lock.file is None
    with FolderLock(tmp_path) as lock:
        lock.acquire()
    assert "for ranks of an earlier start to end" in capfd.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_once_and_the_run_goes_on(tmp_path, monkeypatch, capfd, number):
    def without(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without)
    for _ in range(2):
        with FolderLock(tmp_path) as lock:
            lock.acquire()
            assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path} lies on a file system without locks ({os.strerror(number)})")


@pytest.mark.parametrize("record", ['{"pid": "x", "host": "HOST"}', '{"pid": null}', '{"pid": [1]}', "[]", "\x00"])
def test_a_holder_that_writes_nothing_useful_about_itself_is_refused_in_one_line_too(holder, tmp_path, quick, record):
    holder()
    (tmp_path / "run" / LOCK).write_text(record.replace("HOST", socket.gethostname()))
    with pytest.raises(ConfigError, match=r"^\S+ belongs to another process that still runs: .*: wait for its end"):
        FolderLock(tmp_path / "run").acquire()


def test_the_holder_names_its_command_as_one_types_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/there/cadence/train.py", "name=a b"])
    for spec, command in ((ModuleSpec("cadence.train", None), "cadence train"), (None, "train.py")):
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
        with FolderLock(tmp_path) as lock:
            lock.acquire()
            assert lock.holder()["command"] == f"{command} 'name=a b'"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written \(Not a directory\): choose another folder"):
        FolderLock(tmp_path / "file" / "run").acquire()


def test_only_folders_that_were_missing_and_are_empty_are_removed(tmp_path):
    deep = tmp_path / "a" / "b" / "c"
    (tmp_path / "a").mkdir()
    missing = missing_folders(deep)
    assert missing == [deep, deep.parent]
    deep.mkdir(parents=True)
    (deep.parent / "other").touch()
    remove_empty(missing)
    assert not deep.exists()
    assert (deep.parent / "other").exists()
    Path(deep.parent / "other").unlink()
    remove_empty([deep.parent])
    assert list((tmp_path / "a").iterdir()) == []
