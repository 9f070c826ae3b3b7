"""Jobs that share one process are as good as jobs with a process each: they die alone, and train to the same bits."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.sweep.test_sweep import (
    DEATHS,
    alive,
    app,
    check_deaths,
    hanging,
    results,
    start,
    summary,
    sweep,
    wait_until_free,
)
from tests.test_every_launch import TINY, jobs, result, train

__all__ = ["app"]

LAUNCHER = "hydra/launcher=in_process"


@pytest.mark.slow
def test_jobs_die_alone_each_with_its_exit_code_and_leave_nothing_behind(app: Path) -> None:
    code, _, err = sweep(app, DEATHS, "hydra.launcher.timeout=6", LAUNCHER)
    assert code == 1, err
    check_deaths(app, timeout=6)


def test_jobs_share_a_process_and_nothing_else(app: Path) -> None:
    code, out, err = sweep(app, "x=1,2", "act=complete,raise", LAUNCHER)
    assert code == 1, err
    one, two = results(app).values()
    assert one["pid"] == two["pid"]
    assert [one["name"], two["name"]] == ["s", "s"]
    assert (app / "outputs/s/2/job.log").read_text() == "job says 2\n"
    assert "job says" not in out
    assert [job["status"] for job in summary(app)] == ["completed", "failed"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_sweep_ends_the_job_that_runs_and_starts_no_other(app: Path, signum: signal.Signals) -> None:
    driver = start(app, "-m", "name=s", "act=hang", "x=1,2,3", LAUNCHER)
    pids = _hanging(app)
    driver.send_signal(signum)
    _, err = driver.communicate(timeout=90)
    assert driver.returncode == 128 + signum
    assert not any(alive(pid) for pid in pids)
    assert [job["status"] for job in summary(app)] == ["interrupted"] * 3
    assert "0 of 3 completed, 3 interrupted" in err


@pytest.mark.slow
def test_a_killed_driver_leaves_no_orphan_and_its_sweep_goes_on_with_what_is_not_completed(app: Path) -> None:
    same = ("act=complete,once,complete", LAUNCHER, "resume.path=auto")
    driver = start(app, "-m", "name=s", *same)
    pids = _hanging(app, 1)
    assert list(results(app)) == [0]
    first = results(app)[0]
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate(timeout=60)
    wait_until_free(app / "outputs/s")
    assert not any(alive(pid) for pid in pids)
    code, out, err = sweep(app, *same)
    assert code == 0, err
    assert results(app)[0] == first
    assert "job 0 was completed before" in out
    assert sorted(results(app)) == [0, 1, 2]


def test_a_job_of_several_processes_is_refused(app: Path) -> None:
    code, _, err = sweep(app, "x=1,2", "trainer.devices=2", LAUNCHER)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "trainer.devices=2: hydra/launcher=in_process trains all jobs in one process" in err


@pytest.mark.slow
def test_jobs_that_differ_in_choices_train_to_the_same_bits_as_in_an_interpreter_of_their_own(tmp_path: Path) -> None:
    words = ("optimizer=sgd,lion", "model.dropout=0,0.2", "trainer.threads=1,2", *TINY[:-4], *TINY[-3:])
    for name, launcher in (("one", LAUNCHER), ("each", "hydra/launcher=process")):
        done = train(tmp_path, "-m", f"name={name}", launcher, *words)
        assert done.returncode == 0, done.stderr
        assert [job["status"] for job in jobs(tmp_path / f"outputs/{name}")] == ["completed"] * 8
    for i in range(8):
        one, each = (result(tmp_path / f"outputs/{name}/{i}") for name in ("one", "each"))
        assert one["metrics"] == each["metrics"]
        assert sorted(path.name for path in (tmp_path / f"outputs/one/{i}").rglob("*")) == sorted(
            path.name for path in (tmp_path / f"outputs/each/{i}").rglob("*")
        )


def _hanging(app: Path, job: int = 0) -> list[int]:
    """Wait until a job hangs; the ids of its processes."""
    until = time.monotonic() + 90
    while len(pids := hanging(app, job)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(pids) == 2
    return pids
