"""A disk that is full, a quota, an error of the disk, a folder that is gone: one line, and what was saved stays.

A full disk is real: the kernel refuses writes beyond RLIMIT_FSIZE, and root mounts a small tmpfs in a namespace of its
own. EDQUOT and EIO are raised by a stand-in for `torch.save`: the kernel gives them only with quotas or a broken disk.
"""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback

from trainer.checkpoint.io import checkpoints_in, read
from trainer.checkpoint.saving import SaveFailed
from trainer.cli.run_cli import run_cli
from trainer.config.run_summary import announce
from trainer.distributed.rank_monitor import RankMonitor
from trainer.run import fit, train

ROOT = Path(__file__).parents[2]
SMALL = (
    *("data=synthetic", "data.samples=128", "data.val_samples=32", "data.test_samples=48", "data.batch_size=16"),
    *("trainer.duration=32", "trainer.validate=8", "trainer.log_every=4", "trainer.steps_per_execution=4"),
)


class At(Callback):
    """Does something before update `t`."""

    def __init__(self, t, act):
        self.t, self.act = t, act

    def on_train_batch_start(self, trainer, pl_module, *rest):
        if pl_module.clock.t == self.t:
            self.act()


@contextmanager
def largest_file(size):
    """The kernel refuses to write a file beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def trained(run):
    """The exit code of the run."""
    monitor = RankMonitor(1, 1, 60.0, lambda lost: None)
    return run_cli(lambda: train(run, monitor, 0.0))


def weights(run):
    return dict(run.module.state_dict())


def test_a_save_that_the_kernel_refuses_ends_the_run_in_one_line_and_the_result_says_it(assembled, capsys):
    run, limit = assembled(*SMALL, "model.hidden=[512,512]", "logger=none"), []

    def refuse():
        limit.append(largest_file(1 << 20))
        limit[0].__enter__()

    run.trainer.callbacks.insert(0, At(16, refuse))
    announce(run, [])
    try:
        code = trained(run)
    finally:
        limit[0].__exit__(None, None, None)
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if not line.startswith(("update ", "validate ", "doctor"))]
    folder = run.folder / "checkpoints"
    assert code == 1
    assert line.startswith(f"{folder}/")
    assert " could not be saved: File too large; the newest checkpoint is update-00000016.ckpt. " in line
    assert json.loads((run.folder / "result.json").read_text())["error"] == f"SaveFailed: {line}"
    assert read(checkpoints_in(folder)[-1])["cadence"]["updates"] == 16
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.ENOSPC, errno.EROFS])
def test_the_reason_of_the_system_is_told_as_it_is(assembled, monkeypatch, number):
    def fails(content, file, *rest):
        try:
            raise OSError(number, "as the system says")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:672]")  # noqa: B904

    run = assembled(*SMALL, "model.hidden=[8]", "logger=none")
    run.trainer.callbacks.insert(0, At(8, lambda: monkeypatch.setattr(torch, "save", fails)))
    with pytest.raises(SaveFailed, match=f"could not be saved: {os.strerror(number)}; the newest checkpoint is "):
        fit(run)
    assert len(checkpoints_in(run.folder / "checkpoints")) == 1


def test_an_error_of_torch_is_none_of_the_disk(assembled, monkeypatch):
    def fails(content, file, *rest):
        raise RuntimeError("cannot be serialised")

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(RuntimeError, match="cannot be serialised") as raised:
        fit(assembled(*SMALL, "model.hidden=[8]", "logger=none"))
    assert not isinstance(raised.value, SaveFailed)


def test_a_log_that_cannot_be_written_falls_silent_and_the_run_ends_with_the_same_bits(assembled, capsys):
    words = (*SMALL, "model.hidden=[8]", "callbacks=default")
    whole, run = assembled(*words, folder="whole"), assembled(*words)
    announce(whole, [])
    assert trained(whole) == 0
    announce(run, [])
    (log,) = whole.folder.glob("events*")
    capsys.readouterr()
    largest = max(path.stat().st_size for path in whole.folder.rglob("*") if path != log)
    run.trainer.callbacks.insert(0, At(8, lambda: run.trainer.logger._file._file.seek(largest + 4096)))
    with largest_file(largest + 4096):
        assert trained(run) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert told == ["warning: TensorBoard cannot log: [Errno 27] File too large. The run goes on without it."]
    assert all(torch.equal(value, weights(run)[name]) for name, value in weights(whole).items())
    results = [json.loads((one.folder / "result.json").read_text()) for one in (whole, run)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[1]["status"] == "completed"


def test_a_result_that_cannot_be_written_is_said(assembled, capsys):
    run = assembled(*SMALL, "model.hidden=[8]", "logger=none")
    announce(run, [])
    run.trainer.callbacks.insert(0, At(24, lambda: (run.folder / "result.json").mkdir()))
    assert trained(run) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"the run is completed, but {run.folder}/result.json cannot be written (Is a directory)")


def test_a_folder_that_is_removed_while_the_run_trains_is_said_in_one_line_and_not_made_anew(assembled, capsys):
    run = assembled(*SMALL, "model.hidden=[8]")
    announce(run, [])
    run.trainer.callbacks.insert(0, At(12, lambda: shutil.rmtree(run.folder)))
    assert trained(run) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("update ", "validate "))]
    assert told == [
        f"{run.folder} is gone: it was removed or moved while the run trained, and nothing can be saved there."
    ]
    assert not run.folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_is_read_only_is_refused_before_the_data_is_read(tmp_path, there):
    script = f"""
    mkdir disk && mount -t tmpfs tmpfs disk && cd disk || exit 77
    mkdir -p outputs{"/run" if there else ""}; mount -o remount,ro tmpfs . || exit 77
    "$0" "$@"
    """
    words = ["data=table", "data.path=nowhere.csv", "data.target=y", "name=run", "resume=auto"]
    code, err = on_small_disk(tmp_path, script, words)[::2]
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "outputs/run" in err
    assert "Read-only file system" in err


def on_small_disk(folder, script, words):
    """The exit code and the output of a shell script in a mount namespace of its own; `"$0" "$@"` trains."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("a small disk needs root, for a mount in a namespace of its own")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, str(ROOT / "train.py"), *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == 77:
        pytest.skip("this machine lets nobody mount")
    return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.sample(0)
def test_a_run_on_a_disk_that_fills_up_ends_in_one_line_and_goes_on_when_there_is_room(tmp_path):
    words = [*SMALL, "model.hidden=[256]", "trainer.accelerator=cpu", "trainer.threads=1", "callbacks=none", "name=run"]
    fill = "+callbacks.fill={_target_: tests.checkpoint.filling.Fill, at: 20}"
    script = f"""
    mkdir disk && mount -t tmpfs -o size=6m tmpfs disk && cd disk || exit 77
    "$0" "$@" '{fill}' 'allow=[tests]' 2> ../err > ../out; echo $?
    tail -1 ../err; rm filler
    "$0" "$@" resume=auto 2> ../err > ../out; echo $?; head -2 outputs/run/result.json
    """
    _, out, err = on_small_disk(tmp_path, script, words)
    code, line, *found = out.splitlines()
    assert code == "1", out + err
    assert " could not be saved: No space left on device; the newest checkpoint is update-00000016.ckpt. " in line
    assert found == ["0", "{", '  "status": "completed",'], out
