"""A real Slurm: a job that is preempted or runs out of time goes on where it stopped, to the same bits."""

import json
import re
import shlex
import subprocess

import pytest
from conftest import ROOT, until

from benchmarks.stand_in import toy
from trainer.checkpoint.io import checkpoints_in

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SCRIPT = "slurm_loopback.sh"


def test_a_preempted_job_is_requeued_and_repeats_and_loses_no_sample(slurm, place, whole):
    job = slurm.submit(place)
    until(lambda: len(place.checkpoints()) >= 2)
    slurm("srun", "--partition=hi", "--nodes=2", "--cpus-per-task=2", "true")
    slurm.again(job, place)
    log = (place.path / "log").read_text()
    assert f"interrupted by SIGTERM at update {stopped_at(log)}; Slurm job {job} is requeued" in log
    assert 20 <= stopped_at(log) < 120
    assert place.ends_as(whole), log


@pytest.mark.sample(0)
def test_a_job_whose_time_is_nearly_up_saves_is_requeued_once_and_goes_on(slurm, place, whole):
    job = slurm.submit(place)
    until(lambda: len(place.checkpoints()) >= 2)
    slurm("scancel", "--signal=USR1", job)
    slurm.again(job, place)
    log = (place.path / "log").read_text()
    assert f"interrupted by SIGUSR1 at update {stopped_at(log)}; Slurm job {job} is requeued" in log
    assert slurm.facts(job)["Restarts"] == "1"
    assert place.ends_as(whole), log


def test_a_cancelled_job_saves_and_is_not_requeued(slurm, place):
    job = slurm.submit(place)
    until(lambda: len(place.checkpoints()) >= 2)
    slurm("scancel", job)
    until(lambda: slurm.facts(job)["JobState"] == "CANCELLED" and (place.path / "run/result.json").exists())
    assert place.result()["status"] == "interrupted"
    assert place.checkpoints()[-1].name == f"update-{place.result()['updates']:08d}.ckpt"
    assert slurm.facts(job)["Restarts"] == "0"


@pytest.mark.sample(0)
def test_torchrun_within_srun_that_handles_the_signal_saves_and_the_job_goes_on(slurm, place, whole):
    handled = "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"
    meet = ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:29650", "--rdzv-id=t", "--local-addr=127.0.0.1"]
    agent = [slurm.environment["PYTHON"], "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *meet]
    train = [str(ROOT / "train.py"), *place.words, "trainer=torchrun", "resume=auto"]
    options = ["--parsable", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=2", "--requeue", "--open-mode=append"]
    step = shlex.join(["srun", *agent, handled, *train])
    job = slurm("sbatch", *options, f"--output={place.path}/log", f"--wrap={step}")
    until(lambda: len(place.checkpoints()) >= 2)
    slurm("scancel", "--signal=USR1", job)
    slurm.again(job, place)
    log = (place.path / "log").read_text()
    assert f"interrupted by SIGUSR1 at update {stopped_at(log)}; Slurm job {job} is requeued" in log
    assert place.ends_as(whole), log


def stopped_at(log):
    """The update that the run says it was stopped at; once, whatever the number of ranks and signals."""
    (found,) = re.findall(r"^interrupted by SIG\w+ at update (\d+);", log, flags=re.MULTILINE)
    return int(found)


def test_a_sweep_gives_each_job_a_slurm_job_that_is_requeued_where_its_time_is_up(slurm, place):
    grid = [*place.words[:-1], f"hydra.sweep.dir={place.path}/sweep", "seed=0,1", "trainer=slurm"]
    options = ["hydra/launcher=submitit_slurm", "hydra.launcher.tasks_per_node=2", "hydra.launcher.cpus_per_task=1"]
    words = [slurm.environment["PYTHON"], str(ROOT / "train.py"), "-m", *grid, *options]
    driver = subprocess.Popen(words, env=slurm.environment, stdout=subprocess.PIPE, text=True, cwd=place.path)
    folders = [place.path / "sweep" / number for number in "01"]
    until(
        lambda: driver.poll() is not None or all(len(checkpoints_in(folder / "checkpoints")) >= 2 for folder in folders)
    )
    assert driver.poll() is None
    job = slurm("squeue", "--noheader", "--array", "--format=%i").split()[0]
    slurm("scancel", "--signal=USR2", job)
    slurm.hurry(job, place)
    told, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, told
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    assert [result["status"] for result in results] == ["completed"] * 2
    assert [result["updates"] for result in results] == [120, 120]
    assert results[0]["test"] != results[1]["test"]
    assert sum("interrupted by SIGUSR2" in (folder / "job.log").read_text() for folder in folders) == 1
    assert sum((folder / "config.yaml").exists() for folder in folders) == 2


def test_a_first_failure_ends_a_sweep_through_slurm_and_a_search_learns_there(slurm, tmp_path):
    app = toy(tmp_path / "app")

    def sweep(*words):
        launch = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.jobs=2"]
        command = [slurm.environment["PYTHON"], "train.py", "-m", *words, *launch]
        return subprocess.run(command, env=slurm.environment, cwd=app, capture_output=True, text=True, timeout=400)

    def jobs(name):
        return json.loads((app / f"outputs/{name}/sweep.json").read_text())["jobs"]

    failing = sweep("name=fails", "act=hang,raise,complete", "hydra.launcher.fail_fast=true")
    assert failing.returncode == 1, failing.stderr
    assert [job["status"] for job in jobs("fails")] == ["interrupted", "failed", "waiting"]
    until(lambda: not slurm("squeue", "--noheader"))
    found = sweep("name=search", "hydra/sweeper=search", "x=interval(1,4)", "hydra.sweeper.trials=3")
    assert found.returncode == 0, found.stderr
    assert [job["status"] for job in jobs("search")] == ["completed"] * 3
    assert "best: trial " in found.stdout
