"""What lies under the name of a file of a run, and is none: a pipe, a folder, a device, a link that leads elsewhere."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from trainer.checkpoint.io import AtomicCheckpointIO, checkpoint_path, is_good, read
from trainer.cli.run_cli import _append
from trainer.distributed.launch.folder_lock import FolderLock
from trainer.doctor.log import read_log
from trainer.files.plain import read_record
from trainer.log.scalars import scalars
from trainer.log.validations import append_validation, read_validations
from trainer.lr import ConfigError
from trainer.resume.resume_point import check_unused, newest_good, put_aside
from trainer.tools.report.runs import find_runs

IN_PLACE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to("gone"),
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_a_checkpoint_that_is_no_file_is_left_out_and_told(kind, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    old, new = checkpoint_path(folder, 10), checkpoint_path(folder, 20)
    whole = {"state_dict": {}, "optimizer_states": []}
    entry = dict.fromkeys(["updates", "batch_size", "updates_per_epoch", "config", "curve_history"], 1)
    AtomicCheckpointIO().save_checkpoint({**whole, "cadence": entry}, old)
    IN_PLACE[kind](new)
    assert not is_good(new)
    with pytest.raises(ConfigError):
        read(new)
    (tmp_path / "config.yaml").touch()
    check_unused(tmp_path, "none", new)
    point = newest_good([new, old], tmp_path)
    assert point.path == old
    assert "update-00000020.ckpt is left out: it " in capsys.readouterr().err
    put_aside(point)
    assert sorted(path.name for path in folder.iterdir()) == [old.name, f"{new.name}.damaged"]


@pytest.mark.parametrize("kind", IN_PLACE)
def test_reading_the_folder_of_a_run_ends(kind, tmp_path):
    for name in ("config.yaml", "plan.json", "validations.jsonl", "events.out.tfevents.1.host.1", "job.log"):
        IN_PLACE[kind](tmp_path / name)
    IN_PLACE[kind](tmp_path / "result.json")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "result.json").write_text("{}")
    assert {run.status for run in find_runs(tmp_path)} == {"unfinished"}
    assert read_record(tmp_path / "result.json") == {}
    assert scalars(tmp_path) == {}
    assert read_validations(tmp_path) == []
    with pytest.raises(ConfigError, match=r"no plan\.json"):
        read_log(tmp_path)


def test_nothing_is_written_through_a_link(tmp_path):
    folder, precious = tmp_path / "run", tmp_path / "precious"
    folder.mkdir()
    precious.write_text("kept")
    for name in (".lock", "validations.jsonl", "error.log"):
        (folder / name).symlink_to(precious)
    with pytest.raises(ConfigError, match="cannot be written"), FolderLock(folder) as lock:
        lock.acquire()
    with pytest.raises(OSError, match="symbolic links"):
        append_validation(folder, 1, {"val/loss": 1.0})
    with pytest.raises(OSError, match="symbolic links"):
        _append(folder / "error.log", ValueError("x"))
    assert precious.read_text() == "kept"
