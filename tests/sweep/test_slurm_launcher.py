"""A sweep through Slurm obeys the laws of a sweep: its jobs die alone, end with it, and are taken up again.

The programs of Slurm are stand-ins and submitit is real; tests/cluster has a real Slurm.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
os.environ.setdefault("SLURM_STAND_IN", "/nowhere")

from benchmarks.stand_in import toy
from tests.sweep import slurm_stand_in
from tests.sweep.test_sweep import alive, results, start, summary, sweep
from trainer.sweep import slurm_cluster
from trainer.sweep.slurm_cluster import JOB_ID, Slurm, SlurmProcess

SLURM = ("hydra/launcher=submitit_slurm", "trainer.accelerator=cpu")


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A stand-in for Slurm: the environment that finds it, and its folder; it leaves no job behind."""
    folder = tmp_path / "slurm"
    yield SimpleNamespace(folder=folder, env=slurm_stand_in.install(folder))
    for job in folder.glob("job-*"):
        (job / "cancelled").touch()
        with suppress(OSError, ValueError):
            os.killpg(int((job / "group").read_text()), signal.SIGKILL)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return toy(tmp_path / "toy app")


def submitted(slurm: SimpleNamespace) -> int:
    return len(list(slurm.folder.glob("job-*")))


def wait_for_start(app: Path, driver: "subprocess.Popen[str]", job: int = 0) -> int:
    """The process id of a job, once it runs."""
    starts, until = app / f"outputs/s/{job}/starts", time.monotonic() + 120
    while not starts.exists() and time.monotonic() < until and driver.poll() is None:
        time.sleep(0.1)
    assert starts.exists(), driver.communicate()
    time.sleep(slurm_cluster.POLL + 1)  # until the driver knows
    return int(starts.read_text().split()[0])


@pytest.mark.sample(0)
@pytest.mark.slow
def test_jobs_die_alone_each_with_its_reason_and_leave_nothing_behind(app: Path, slurm: SimpleNamespace) -> None:
    words = ("act=raise,code,kill,leave,hang,complete", "hydra.launcher.timeout=20")
    code, _, err = sweep(app, *words, *SLURM, **slurm.env)
    assert code == 1, err
    assert [job["status"] for job in summary(app)] == ["failed"] * 5 + ["completed"]
    reasons = [job["error"] for job in summary(app)]
    assert reasons[0] == "exit code 1: ZeroDivisionError: division by zero"
    assert reasons[1].startswith("exit code 3: ")
    assert reasons[2].startswith("killed by SIGKILL")
    assert reasons[3] == "exit code 0: no result.json"
    assert reasons[4] == "took longer than 20 s"
    assert err.splitlines()[-1].startswith("5 of 6 jobs failed: job 0 act=raise, job 1 act=code")
    assert not list((app / "outputs/s").glob(f"*/{JOB_ID}"))
    assert not alive(int((app / "outputs/s/4/starts").read_text()))


@pytest.mark.slow
def test_the_first_failure_ends_what_runs_and_submits_no_more(app: Path, slurm: SimpleNamespace) -> None:
    words = ("act=hang,raise,complete", "hydra.launcher.fail_fast=true", "hydra.launcher.jobs=2")
    code, _, err = sweep(app, *words, *SLURM, **slurm.env)
    assert code == 1, err
    assert [job["status"] for job in summary(app)] == ["interrupted", "failed", "waiting"]
    assert "interrupted by the failure of job 1" in summary(app)[0]["error"]
    assert submitted(slurm) == 2
    assert all((job / "ended").exists() for job in slurm.folder.glob("job-*"))


@pytest.mark.slow
def test_a_signal_ends_the_jobs_that_run_and_those_that_wait_in_slurm(app: Path, slurm: SimpleNamespace) -> None:
    driver = start(app, "-m", "name=s", "act=hang", "x=1,2,3", *SLURM, **slurm.env)
    pids = [wait_for_start(app, driver, job) for job in (0, 1)]
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 128 + signal.SIGINT, err
    assert not any(alive(pid) for pid in pids)
    assert err.splitlines()[-1].startswith("SIGINT interrupted the sweep: 0 of 3 completed, 3 interrupted")
    assert not (app / "outputs/s/2/starts").exists()
    assert all((job / "ended").exists() for job in slurm.folder.glob("job-*"))


@pytest.mark.sample(0)
@pytest.mark.slow
def test_jobs_outlive_a_killed_driver_and_the_next_one_waits_for_them_and_submits_only_the_others(
    app: Path, slurm: SimpleNamespace
) -> None:
    words = ("act=hang,complete", "resume.path=auto", *SLURM)
    driver = start(app, "-m", "name=s", *words, **slurm.env)
    pid = wait_for_start(app, driver)
    driver.kill()
    driver.communicate(timeout=60)
    assert alive(pid)
    again = start(app, "-m", "name=s", *words, **slurm.env)
    assert again.stdout is not None
    lines = [next(again.stdout)]
    while "Slurm job" not in lines[-1]:
        lines.append(next(again.stdout))
    assert lines[-1] == f"{app}/outputs/s/0: Slurm job 1\n"
    os.kill(pid, signal.SIGKILL)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 1, err
    assert [job["status"] for job in summary(app)] == ["failed", "completed"]
    assert submitted(slurm) == 2
    assert sweep(app, *words, **slurm.env)[0] == 0
    assert submitted(slurm) == 3
    assert sorted(results(app)) == [0, 1]


@pytest.mark.slow
def test_a_search_gives_its_trials_to_slurm_and_learns_from_those_that_have_ended(
    app: Path, slurm: SimpleNamespace
) -> None:
    pytest.importorskip("optuna", reason="the extra `search` is not installed")
    words = ("hydra/sweeper=search", "x=interval(1,4)", "hydra.sweeper.trials=3", "hydra.launcher.jobs=2", "sleep=0.1")
    code, out, err = sweep(app, *words, *SLURM, **slurm.env)
    assert (code, err) == (0, "")
    assert [job["status"] for job in summary(app)] == ["completed"] * 3
    assert len({job["parameters"]["x"] for job in summary(app)}) == 3
    assert "trials: 3 complete\n" in out
    assert "learns from none" not in out
    assert submitted(slurm) == 3


def test_a_job_that_slurm_refuses_is_told_in_one_line_before_another_is_submitted(
    app: Path, slurm: SimpleNamespace
) -> None:
    (slurm.folder / "refuse").touch()
    code, _, err = sweep(app, "x=1,2", *SLURM, **slurm.env)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert "Slurm refuses the first job" in err
    assert "invalid partition specified: nowhere" in err


def test_without_slurm_a_sweep_is_refused_before_it_has_a_job_or_a_record(app: Path) -> None:
    code, out, err = sweep(app, "x=1,2", *SLURM, PATH=str(app))
    assert (code, out) == (2, "")
    assert "submit from a machine that has srun" in err
    assert [path.name for path in app.glob("outputs/*/*")] in ([], ["multirun.yaml"])  # which Hydra writes


@pytest.fixture
def queue(slurm: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A connection to a Slurm that has one job, which runs; `failures` makes squeue fail so often."""
    for name, value in slurm.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(slurm_cluster, "POLL", 0)
    (slurm.folder / "job-7").mkdir()
    (slurm.folder / "job-7/group").touch()
    tasks = SimpleNamespace(paths=SimpleNamespace(result_pickle=tmp_path / "none"))
    handle = SimpleNamespace(job_id="7", num_tasks=1, task=lambda number: tasks)
    connection = Slurm(tmp_path, "test", {"nodes": 1, "tasks_per_node": 1})
    connection.processes["7"] = process = SlurmProcess(connection, handle, tmp_path / "job.log")
    return SimpleNamespace(
        process=process, connection=connection, failures=slurm.folder / "failures", job=slurm.folder / "job-7"
    )


@pytest.mark.parametrize("failures", [0, 1, slurm_cluster.LOOKS - 1])
def test_a_controller_that_does_not_answer_is_asked_again(queue: SimpleNamespace, failures: int) -> None:
    queue.failures.write_text(str(failures))
    for _ in range(failures + 1):
        assert queue.process.poll() is None
    assert queue.connection._states() == {"7": "RUNNING"}


def test_a_controller_that_never_answers_ends_the_driver_and_not_the_jobs(queue: SimpleNamespace) -> None:
    queue.failures.write_text(str(slurm_cluster.LOOKS))
    for _ in range(slurm_cluster.LOOKS - 1):
        assert queue.process.poll() is None
    with pytest.raises(RuntimeError, match="Unable to contact slurm controller: the jobs go on"):
        queue.process.poll()
    queue.process.send(signal.SIGKILL)
    assert not (queue.job / "cancelled").exists()


def test_a_task_that_was_killed_fails_the_job_although_others_left_with_0(
    queue: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "result").touch()
    paths = SimpleNamespace(result_pickle=tmp_path / "result")
    tasks = [SimpleNamespace(paths=paths, result=lambda code=code: code) for code in (0, -9)]
    queue.process._handle = SimpleNamespace(job_id="7", num_tasks=2, task=tasks.__getitem__)
    assert queue.process.poll() == -9


def test_a_job_that_is_gone_without_a_result_has_failed_but_not_at_the_first_look(queue: SimpleNamespace) -> None:
    (queue.job / "ended").touch()
    assert [queue.process.poll() for _ in range(slurm_cluster.LOOKS)] == [None] * (slurm_cluster.LOOKS - 1) + [1]
    assert "gone from Slurm without a result" in (queue.process._log).read_text()
