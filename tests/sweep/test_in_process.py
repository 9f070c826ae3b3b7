"""Jobs that share one process are as good as jobs with a process each: they die alone, and train to the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.sweep.test_sweep import (
    DEATHS,
    alive,
    app,
    check_deaths,
    environment,
    hanging,
    results,
    start,
    summary,
    sweep,
    wait_until_free,
)
from tests.test_every_launch import ROOT, TINY, jobs, result, train

__all__ = ["app"]

LAUNCHER = "hydra/launcher=in_process"
FROZEN = """
import gc
from pathlib import Path
import pytorch_lightning as pl

class Planted(pl.Callback):
    def on_train_end(self, trainer, module):
        Path(trainer.default_root_dir, "frozen").write_text(str(gc.get_freeze_count()))
"""


@pytest.mark.slow
@pytest.mark.sample(0)
def test_jobs_die_alone_each_with_its_exit_code_and_leave_nothing_behind(app: Path) -> None:
    code, _, err = sweep(app, DEATHS, "hydra.launcher.timeout=15", LAUNCHER)
    assert code == 1, err
    check_deaths(app, timeout=15)


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
@pytest.mark.sample(0)
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
@pytest.mark.sample(0)
def test_a_killed_driver_leaves_no_orphan_and_its_sweep_goes_on_with_what_is_not_completed(app: Path) -> None:
    same = ("act=complete,once,complete", LAUNCHER, "resume.path=auto")
    driver = start(app, "-m", "name=s", *same)
    pids = _hanging(app, 1)
    assert sorted(results(app)) == [0, 2]  # alike jobs come together
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


def test_the_process_keeps_nothing_of_a_job_that_the_collector_never_sees_again(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(FROZEN)
    words = (*TINY, "+callbacks.planted._target_=planted.Planted", "seed=1,2,3,4", "hydra.launcher.stack=false")
    done = train(tmp_path, "-m", "name=s", LAUNCHER, *words, path=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = [int((tmp_path / f"outputs/s/{i}/frozen").read_text()) for i in range(4)]
    assert counts[3] - counts[1] < 100


def test_a_job_of_several_processes_is_refused(app: Path) -> None:
    code, _, err = sweep(app, "x=1,2", "trainer.devices=2", LAUNCHER)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "trainer.devices=2: hydra/launcher=in_process trains all jobs in one process" in err


@pytest.mark.slow
def test_jobs_that_differ_in_numbers_train_as_one_and_one_that_breaks_or_is_refused_harms_no_other(
    tmp_path: Path,
) -> None:
    words = (
        "optimizer=sgd",
        "optimizer.lr=0.01,1e30,0.1,-1",
        "lint.ignore=[huge-lr]",
        "trainer.duration=20",
        *TINY[:4],
    )
    words += ("trainer.validate=5", "warmup=none", "trainer.accelerator=cpu", "trainer.threads=1", "callbacks=none")
    for name, launcher in (("one", LAUNCHER), ("each", "hydra/launcher=process")):
        done = train(tmp_path, "-m", f"name={name}", launcher, *words)
        assert done.returncode == 1, done.stderr
        statuses = [job["status"] for job in jobs(tmp_path / f"outputs/{name}")]
        assert statuses == ["completed", "failed", "completed", "failed"]
        assert ("3 jobs have trained as one in " in done.stdout) == (name == "one")
        assert ("s; 1 of them broke, and train alone to say where\n" in done.stdout) == (name == "one")
    for i in (0, 2):
        one, each = (result(tmp_path / f"outputs/{name}/{i}") for name in ("one", "each"))
        assert one["metrics"].keys() == each["metrics"].keys()
        assert all(abs(one["metrics"][key] - value) < 1e-6 for key, value in each["metrics"].items())
    errors = [[job["error"] for job in jobs(tmp_path / f"outputs/{name}")] for name in ("one", "each")]
    assert [text.replace("/one/", "/each/") for text in errors[0]] == errors[1]
    again = train(tmp_path, "-m", "name=one", LAUNCHER, "resume=auto", *words)
    assert "job 0 was completed before" in again.stdout
    assert "job 2 was completed before" in again.stdout


@pytest.mark.slow
@pytest.mark.sample(0)
def test_a_sweep_that_is_killed_while_jobs_train_as_one_goes_on(tmp_path: Path) -> None:
    words = (*TINY[:4], "optimizer.lr=0.01,0.02,0.03", "trainer.duration=4000", "trainer.validate=4000", "logger=none")
    words += ("warmup=none", "trainer.accelerator=cpu", "trainer.threads=1", "callbacks=none", LAUNCHER, "name=s")
    driver = subprocess.Popen([sys.executable, str(ROOT / "train.py"), "-m", *words], cwd=tmp_path, env=environment())
    until = time.monotonic() + 90
    while not (tmp_path / "outputs/s/2/job.log").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(8)
    driver.kill()
    driver.communicate(timeout=60)
    wait_until_free(tmp_path / "outputs/s")
    done = train(tmp_path, "-m", "resume=auto", *words)
    assert done.returncode == 0, done.stderr
    assert [job["status"] for job in jobs(tmp_path / "outputs/s")] == ["completed"] * 3


@pytest.mark.slow
@pytest.mark.sample(0)
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
