"""A command that is refused leaves no folder, and takes nothing away that was there before."""

from pathlib import Path

import pytest

from tests.cli.test_run_cli import app, run
from trainer.cli.run_folder import emptied_where_refused, removed_where_refused
from trainer.distributed.launch.folder_lock import FolderLock
from trainer.lr import ConfigError

__all__ = ["app"]


def fail(folder: Path, error: Exception, *names: str) -> None:
    """Write files into a folder as a run does, and fail."""
    with removed_where_refused(folder), FolderLock(folder) as lock, emptied_where_refused(lock):
        lock.acquire()
        for name in names:
            (folder / name).touch()
        raise error


def test_a_refused_run_leaves_no_folder_and_no_folder_that_it_lies_in(app: Path) -> None:
    (app / "old").mkdir()
    assert run(app, "act=refuse", "hydra.run.dir=old/new/deep")[0] == 2
    assert list((app / "old").iterdir()) == []
    assert run(app, "act=interrupt")[0] == 130
    assert not (app / "out").exists()


def test_what_was_there_before_stays(app: Path) -> None:
    (app / "out").mkdir()
    assert run(app, "act=refuse")[0] == 2
    assert (app / "out").is_dir()


def test_a_failed_run_keeps_its_folder_with_the_traceback(app: Path) -> None:
    assert run(app, "act=raise")[0] == 1
    assert (app / "out/error.log").exists()


@pytest.mark.parametrize(("error", "stays"), [(ConfigError("no"), False), (RuntimeError("no"), True)])
def test_only_a_refusal_removes_what_a_run_has_written_before_its_first_update(
    tmp_path: Path, error: Exception, stays: bool
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(type(error)):
        fail(folder, error, "config.yaml", "plan.json", ".job", "events.out.tfevents.1")
    assert folder.exists() == stays


@pytest.mark.parametrize("name", ["result.json", "checkpoints/update-00000001.ckpt", "mine.txt"])
def test_a_run_that_is_there_and_the_files_of_a_user_stay(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).touch()
    (folder / "config.yaml").touch()
    with pytest.raises(ConfigError):
        fail(folder, ConfigError("no"))
    assert (folder / name).exists()
    assert (folder / "config.yaml").exists()
    assert not (folder / ".lock").exists()


@pytest.mark.slow
def test_a_run_from_python_that_is_refused_after_its_plan_is_written_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cadence

    monkeypatch.chdir(tmp_path)
    words = ("trainer.duration=2", "trainer.accelerator=cpu", "callbacks=none", "warmup=none", "name=r")
    with pytest.raises(ConfigError, match=r"task\.metrics\.x: Predictions and targets"):
        cadence.fit(*words, "+task.metrics.x._target_=torchmetrics.classification.BinaryAccuracy")
    assert list(tmp_path.iterdir()) == []
