"""A job that is refused leaves no folder, and neither does a sweep that is refused before its first job."""

from pathlib import Path

from tests.sweep.test_sweep import app, summary, sweep

__all__ = ["app"]


def test_a_refused_job_leaves_no_folder_and_a_refused_sweep_none_at_all(app: Path) -> None:
    code, _, err = sweep(app, "act=refuse,complete")
    assert (code, summary(app)[0]["error"]) == (1, "exit code 2: x=0 is refused")
    assert not (app / "outputs/s/0").exists()
    assert (app / "outputs/s/1/result.json").exists()
    (app / "elsewhere").mkdir()
    code, _, err = sweep(app, "x=1,2", "hydra.sweep.dir=elsewhere/s", "hydra/sweeper=grid", "hydra.sweep.subdir=same")
    assert code == 2, err
    assert list((app / "elsewhere").iterdir()) == []
