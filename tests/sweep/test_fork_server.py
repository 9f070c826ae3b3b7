"""A job that the fork server has forked is as good as a fresh one: it dies alone, and trains the same."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.sweep.test_sweep import DEATHS, app, check_deaths, results, sweep
from tests.test_every_launch import ROOT, TINY, jobs, result, train
from trainer.sweep.fork_server import modules_of, why_not_fork

__all__ = ["app"]


def test_the_modules_to_import_are_those_of_this_project_that_the_config_names() -> None:
    config = {"model": {"_target_": "models.mlp.MLP"}, "logger": [{"_target_": "trainer.log.tensorboard.TensorBoard"}]}
    foreign = {"loss": {"_target_": "torch.nn.MSELoss"}, "mine": {"_target_": "own.Net"}, "lr": 0.1}
    assert modules_of(config | foreign) == ["models.mlp", "trainer.log.tensorboard"]


def test_a_process_with_threads_is_not_forked() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        assert "an import has started" in why_not_fork()
    finally:
        end.set()
        thread.join()


@pytest.mark.slow
def test_forked_jobs_die_alone_each_with_its_exit_code_and_leave_nothing_behind(app: Path) -> None:
    words = (DEATHS, "hydra.launcher.jobs=3", "hydra.launcher.timeout=6")
    code, out, err = sweep(app, *words, "trainer.accelerator=cpu", "hydra.launcher.fork=true")
    assert code == 1, err
    check_deaths(app, timeout=6)
    (done,) = results(app).values()
    assert done["argv"][0] == "train.py"
    assert (done["name"], done["devices"]) == ("s", os.environ.get("CUDA_VISIBLE_DEVICES"))
    assert done["threads"] == str(max(1, len(os.sched_getaffinity(0)) // 3))


@pytest.mark.slow
def test_a_forked_job_trains_to_the_same_bits_as_a_fresh_interpreter(tmp_path: Path) -> None:
    done = train(tmp_path, "-m", "name=s", "seed=1,2", "hydra.launcher.fork=true", "hydra.launcher.jobs=2", *TINY)
    assert done.returncode == 0, done.stderr
    assert [job["status"] for job in jobs(tmp_path / "outputs/s")] == ["completed"] * 2
    plain = subprocess.run([sys.executable, str(ROOT / "train.py"), "name=plain", "seed=2", *TINY], cwd=tmp_path)
    assert plain.returncode == 0
    forked, fresh = result(tmp_path / "outputs/s/1"), result(tmp_path / "outputs/plain")
    assert forked["metrics"] == fresh["metrics"]
    other = json.loads((tmp_path / "outputs/s/0/result.json").read_text())
    assert other["metrics"] != fresh["metrics"]
