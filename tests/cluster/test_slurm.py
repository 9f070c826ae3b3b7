"""A real Slurm: a job that is preempted or runs out of time goes on where it stopped, to the same bits."""

import re
import subprocess

import pytest
from conftest import until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SCRIPT = "slurm_loopback.sh"


def test_a_preempted_job_is_requeued_and_repeats_and_loses_no_sample(slurm, place, whole):
    job = slurm.submit(place)
    until(lambda: len(place.checkpoints()) >= 2)
    slurm("srun", "--partition=hi", "--nodes=2", "--cpus-per-task=2", "true")
    slurm.again(job, place)
    log = (place.path / "log").read_text()
    assert f"stopped by SIGTERM at update {stopped_at(log)}; Slurm job {job} is requeued" in log
    assert 20 <= stopped_at(log) < 120
    assert place.ends_as(whole), log


def test_a_job_whose_time_is_nearly_up_saves_is_requeued_once_and_goes_on(slurm, place, whole):
    job = slurm.submit(place)
    until(lambda: len(place.checkpoints()) >= 2)
    slurm("scancel", "--signal=USR1", job)
    slurm.again(job, place)
    log = (place.path / "log").read_text()
    assert f"stopped by SIGUSR1 at update {stopped_at(log)}; Slurm job {job} is requeued" in log
    assert slurm.facts(job)["Restarts"] == "1"
    assert place.ends_as(whole), log


def test_a_cancelled_job_saves_and_is_not_requeued(slurm, place):
    job = slurm.submit(place)
    until(lambda: len(place.checkpoints()) >= 2)
    slurm("scancel", job)
    until(lambda: slurm.facts(job)["JobState"] == "CANCELLED" and (place.path / "run/result.json").exists())
    assert place.result()["status"] == "stopped"
    assert place.checkpoints()[-1].name == f"update-{place.result()['updates']:08d}.ckpt"
    assert slurm.facts(job)["Restarts"] == "0"


def test_a_step_with_uneven_tasks_is_refused_in_one_line(slurm, place):
    words = ["srun", "--nodes=2", "--ntasks=3", "--distribution=block", "python", "train.py", "trainer=slurm"]
    words[4] = slurm.environment["PYTHON"]
    done = subprocess.run(words, env=slurm.environment, capture_output=True, text=True, timeout=120)
    ours = [line for line in done.stderr.splitlines() if not line.startswith(("srun:", "slurmstepd"))]
    assert done.returncode == 2
    assert len(ours) == 1
    assert "not as many on each node" in ours[0]


def stopped_at(log):
    """The update that the run says it was stopped at; once, whatever the number of ranks and signals."""
    (found,) = re.findall(r"^stopped by SIG\w+ at update (\d+);", log, flags=re.MULTILINE)
    return int(found)
