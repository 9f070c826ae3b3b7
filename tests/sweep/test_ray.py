"""A sweep through Ray: plain runs beside its workers; whatever dies, the others go on and no orphan is left."""

import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.stand_in import toy
from tests.sweep.test_sweep import (
    DEATHS,
    ROOT,
    alive,
    app,
    check_deaths,
    environment,
    hanging,
    results,
    start,
    summary,
    sweep,
)
from tests.test_every_launch import TINY

__all__ = ["app"]
RAY = ("hydra/launcher=ray", "trainer.accelerator=cpu")
PATHS = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
THERE = importlib.util.find_spec("ray") is not None
with_ray = pytest.mark.skipif(not THERE, reason="ray is not installed: pip install -e '.[ray]'")


@pytest.mark.skipif(THERE, reason="ray is installed")
def test_without_ray_the_launcher_says_in_one_line_what_to_install(app: Path) -> None:
    code, _, err = sweep(app, "x=1,2", *RAY)
    assert (code, err) == (
        2,
        "hydra/launcher=ray needs ray, which is not installed (extra ray): pip install 'ray>=2.60'.\n",
    )
    assert not (app / "outputs/s/0").exists()


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("cpus=0", "hydra.launcher.cpus=0 must be at least 1"),
        ("gpus=1.5", "hydra.launcher.gpus=1.5 must be a whole number, or a part of one GPU"),
        ("gpus=nan", "hydra.launcher.gpus=nan must be a whole number"),
        ("gpus=-1", "hydra.launcher.gpus=-1"),
        ("address=ray://host:10001", "must be auto or HOST:PORT, on a machine of the cluster, or null"),
        ("jobs=0", "hydra.launcher.jobs=0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_before_ray_is_asked_for(app: Path, word: str, told: str) -> None:
    code, _, err = sweep(app, "x=1,2", *RAY, f"hydra.launcher.{word}")
    assert (code, len(err.splitlines())) == (2, 1), err
    assert told in err


@with_ray
@pytest.mark.slow
def test_jobs_die_alone_each_with_its_reason_and_leave_nothing_behind(app: Path) -> None:
    deaths = (DEATHS, "hydra.launcher.timeout=10")
    code, out, err = sweep(app, *deaths, *RAY, PYTHONPATH=PATHS)
    assert code == 1, err
    check_deaths(app, timeout=10)
    (done,) = results(app).values()
    assert (done["devices"], done["threads"]) == ("", "1")
    assert err.splitlines()[-1].startswith("6 of 7 jobs failed: job 0 act=raise, job 1 act=vanish")


@with_ray
@pytest.mark.slow
def test_the_same_command_with_resume_auto_runs_only_what_is_missing(app: Path) -> None:
    words = ("act=once,complete", *RAY, "hydra.launcher.timeout=10", "resume.path=auto")
    assert sweep(app, *words, PYTHONPATH=PATHS)[0] == 1
    before = results(app)
    assert list(before) == [1]
    code, out, err = sweep(app, *words, PYTHONPATH=PATHS)
    assert (code, err) == (0, "")
    assert "job 1 was completed before" in out
    assert results(app)[1] == before[1]
    assert [job["status"] for job in summary(app)] == ["completed"] * 2


def hang(app: Path, *words: str, **env: str) -> tuple["subprocess.Popen[str]", list[int]]:
    """The driver of a sweep whose job 0 hangs, and the processes of that job."""
    driver = start(app, "-m", "name=s", *words, *RAY, **{"PYTHONPATH": PATHS, **env})
    until = time.monotonic() + 120
    while len(pids := hanging(app)) < 2 and time.monotonic() < until and driver.poll() is None:
        time.sleep(0.1)
    assert len(pids) == 2, driver.communicate()
    return driver, pids


def gone(pids: list[int]) -> bool:
    until = time.monotonic() + 40
    while any(alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    return not any(alive(pid) for pid in pids)


@with_ray
@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_sweep_ends_what_runs_and_what_waits_for_room(app: Path, signum: signal.Signals) -> None:
    cores = os.cpu_count()
    driver, pids = hang(app, "act=hang", "x=1,2,3", f"hydra.launcher.cpus={cores}")
    time.sleep(1)
    driver.send_signal(signum)
    _, err = driver.communicate(timeout=90)
    assert driver.returncode == 128 + signum, err
    assert not any(alive(pid) for pid in pids)
    assert err.splitlines()[-1].startswith(f"{signum.name} interrupted the sweep: 0 of 3 completed, 3 interrupted")


@with_ray
@pytest.mark.slow
def test_a_driver_that_is_killed_leaves_no_process_of_a_job_and_none_of_ray(app: Path) -> None:
    driver, pids = hang(app, "act=hang", "x=1,2")
    above = parents(pids[0])
    driver.kill()
    driver.communicate(timeout=90)
    assert gone([*pids, *above])


@with_ray
@pytest.mark.slow
@pytest.mark.parametrize(("who", "told"), [(1, "lost by Ray: "), (0, "killed by SIGKILL")])
def test_a_worker_that_is_killed_or_the_program_between_fails_its_job_only(app: Path, who: int, told: str) -> None:
    driver, pids = hang(app, "act=hang,complete")
    os.kill(parents(pids[0])[who], signal.SIGKILL)
    out, err = driver.communicate(timeout=120)
    assert driver.returncode == 1, err
    assert [job["status"] for job in summary(app)] == ["failed", "completed"]
    assert told in summary(app)[0]["error"]
    assert gone(pids)


def parents(pid: int) -> list[int]:
    """The program between, Ray's worker, and Ray's process for this machine."""
    above = []
    for _ in range(3):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        above.append(pid)
    return above


@with_ray
@pytest.mark.slow
def test_what_no_machine_can_hold_and_a_cluster_that_is_not_there_are_refused(app: Path) -> None:
    for word, told in (("cpus=10000", "takes hydra.launcher.cpus=10000"), ("address=127.0.0.1:9", "no Ray answers")):
        code, _, err = sweep(app, "x=1,2", *RAY, f"hydra.launcher.{word}", PYTHONPATH=PATHS)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert told in err


@with_ray
@pytest.mark.slow
def test_on_a_cluster_each_job_sees_the_gpus_that_ray_gives_it_and_a_killed_driver_leaves_no_orphan(app: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = f"-m ray.scripts.scripts start --head --block --port={port} --num-cpus=2"
    more = "--num-gpus=2 --include-dashboard=false --disable-usage-stats --object-store-memory=83886080"
    command = [sys.executable, *words.split(), *more.split()]
    ours = {"PYTHONPATH": PATHS, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen(command, env=environment(**ours), **quiet)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            time.sleep(0.5)
        time.sleep(3)
        cluster = f"hydra.launcher.address=127.0.0.1:{port}"
        code, _, err = sweep(app, "x=1,2", "sleep=2", *RAY, cluster, "hydra.launcher.gpus=1", **ours)
        assert (code, err) == (0, "")
        assert {job["devices"] for job in results(app).values()} == {"0", "1"}
        shutil.rmtree(app / "outputs")
        driver, pids = hang(app, "act=hang", cluster, **ours)
        driver.kill()
        driver.communicate(timeout=90)
        assert gone(pids)
        assert head.poll() is None
    finally:
        head.terminate()
        head.wait(60)


@with_ray
@pytest.mark.slow
def test_real_runs_that_start_ranks_of_their_own_train_and_one_that_is_refused_is_listed(tmp_path: Path) -> None:
    grid = ("optimizer.lr=1e-3,2e-3,nan", "trainer=ddp", "trainer.devices=2", f"hydra.sweep.dir={tmp_path}/s", *TINY)
    words = [sys.executable, str(ROOT / "train.py"), "-m", *grid, *RAY, "hydra.launcher.cpus=1"]
    done = subprocess.run(words, env=environment(PYTHONPATH=PATHS), capture_output=True, text=True, timeout=400)
    assert done.returncode == 1, done.stderr
    assert re.search(r"^job 2 failed: optimizer.lr=nan: exit code 2: .*optimizer", done.stderr, re.MULTILINE)
    assert done.stderr.splitlines()[-1].startswith("1 of 3 jobs failed: job 2 optimizer.lr=nan; see ")
    assert sum((tmp_path / f"s/{job}/result.json").exists() for job in range(2)) == 2


@with_ray
@pytest.mark.slow
def test_a_search_gives_its_trials_to_ray(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    app = toy(tmp_path / "app")
    words = ("hydra/sweeper=search", "x=interval(1,4)", "hydra.sweeper.trials=3", "hydra.launcher.jobs=2", "sleep=0.1")
    code, out, err = sweep(app, *words, *RAY, PYTHONPATH=PATHS)
    assert (code, err) == (0, "")
    assert [job["status"] for job in summary(app)] == ["completed"] * 3
    assert "trials: 3 complete\n" in out
