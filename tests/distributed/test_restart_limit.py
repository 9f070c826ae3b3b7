"""A Slurm job that is started again and again without a new update is given up; one that gets on never is."""

import json
import os
import signal

import pytest

from tests.distributed.signalling import Send
from trainer.checkpoint.io import checkpoint_path
from trainer.cli import run_cli as front
from trainer.config.settings import settings_of
from trainer.distributed.launch import requeue, restart_limit
from trainer.distributed.launch.restart_limit import (
    RECORD,
    RestartLimitReached,
    record_start,
    restart_limit_message,
)
from trainer.distributed.launch.signals import Interrupted
from trainer.lr import ConfigError
from trainer.run import fit

USR1, USR2, TERM = signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM


@pytest.fixture
def slurm(monkeypatch, tmp_path):
    """Job 7 of a Slurm whose `scontrol` notes what it is asked; `slurm(n)` starts this job for the (n + 1)-th time."""
    programs, asked = tmp_path / "bin", tmp_path / "asked"
    programs.mkdir()
    (programs / "scontrol").write_text(
        f"#!/bin/sh\necho $@ >> {asked}\n"
        "[ $1 = show ] && echo JobId=7 JobState=RUNNING PreemptTime=$PREEMPTED\nexit 0\n"
    )
    (programs / "scontrol").chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("SLURM_", "CADENCE_NO_REQUEUE"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PREEMPTED", "None")

    def start(restarts):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        for module, name, empty in (
            (restart_limit, "_folders", []),
            (requeue, "_results", []),
            (requeue, "_preempted", {}),
        ):
            monkeypatch.setattr(module, name, empty)

    start.asked = lambda: asked.read_text().splitlines() if asked.exists() else []
    start(0)
    return start


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def save(folder, update):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    checkpoint_path(folder / "checkpoints", update).touch()


def ended(stopped):
    """The exit code of a run that a signal has stopped."""
    return front.run_cli(lambda: (_ for _ in ()).throw(stopped))


def test_the_third_start_in_vain_fails_in_one_line_and_is_not_requeued(slurm, folder, capsys):
    for restarts in range(3):
        slurm(restarts)
        record_start(folder, 3)
        assert ended(Interrupted(USR1)) == (138 if restarts < 2 else 1)
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == second == "interrupted by SIGUSR1 before the first update; Slurm job 7 is requeued"
    assert third == (
        "interrupted by SIGUSR1 before the first update; Slurm job 7 is given up: 3 starts in a row have made "
        "no update: give it more time (sbatch --time), or raise trainer.max_idle_restarts=3"
    )
    assert slurm.asked() == ["requeue 7"] * 2


def test_a_job_that_slurm_itself_starts_again_and_again_is_given_up_as_it_starts(slurm, folder, capsys):
    """Nothing is heard of a node that fails: the count is taken at the start, too."""
    save(folder, 12)
    for restarts in range(4):
        slurm(restarts)
        code = front.run_cli(lambda: record_start(folder, 3))
        assert code == (0 if restarts < 3 else 1)
    assert "Slurm job 7 is given up: 3 starts in a row have made no update beyond 12: " in capsys.readouterr().err


def test_each_new_update_starts_the_count_again(slurm, folder):
    for restarts in range(20):
        slurm(restarts)
        record_start(folder, 2)
        if restarts % 2:
            save(folder, restarts)
        assert not restart_limit_message(USR1), restarts
    slurm(20)
    record_start(folder, 2)
    slurm(21)
    record_start(folder, 2)
    assert restart_limit_message(USR1)


def test_another_job_in_the_folder_counts_from_its_own_first_start(slurm, folder, monkeypatch):
    for job in "789":
        monkeypatch.setenv("SLURM_JOB_ID", job)
        for restarts in (0, 1):
            slurm(restarts)
            record_start(folder, 3)
        assert not restart_limit_message(USR1)


@pytest.mark.parametrize("signum", [USR1, USR2, TERM])
def test_only_what_would_be_requeued_is_given_up(slurm, folder, monkeypatch, signum):
    for restarts in range(3):
        slurm(restarts)
        record_start(folder, 3)
    assert bool(restart_limit_message(signum)) == (signum != TERM), "a job that is cancelled is not started again"
    slurm(2)
    monkeypatch.setenv("PREEMPTED", "2026-01-01T00:00:00")
    record_start(folder, 3)
    assert restart_limit_message(signum)
    monkeypatch.setenv("CADENCE_NO_REQUEUE", "parent")
    assert restart_limit_message(signum), "a job of submitit says so itself, and its parent hears the exit code"
    monkeypatch.setenv("CADENCE_NO_REQUEUE", "1")
    assert not restart_limit_message(signum), "a job of a sweep, which nobody requeues"
    monkeypatch.delenv("SLURM_JOB_ID")
    assert not restart_limit_message(signum)


def test_null_never_gives_up_and_other_numbers_are_counted(slurm, folder, compose):
    for restarts in range(30):
        slurm(restarts)
        record_start(folder, None)
        assert not restart_limit_message(USR1)
    for wrong in ("0", "-1", "2.5", "often", "true"):
        with pytest.raises(ConfigError, match=r"trainer\.max_idle_restarts="):
            settings_of(compose(f"trainer.max_idle_restarts={wrong}"))


def test_a_time_limit_that_is_up_before_the_run_begins_is_not_asked_for_again(slurm, capsys):
    assert ended(Interrupted(USR1)) == 1
    assert "Slurm job 7 is given up: its time was up before the run had begun: give it more" in capsys.readouterr().err
    assert slurm.asked() == []


def test_a_record_that_was_cut_short_counts_from_here(slurm, folder):
    slurm(5)
    folder.mkdir()
    for text in ("", '{"job": "7"', "[]"):
        (folder / RECORD).write_text(text)
        record_start(folder, 3)
        assert json.loads((folder / RECORD).read_text())["since"] == 5


@pytest.mark.usefixtures("watching")
def test_a_run_that_is_stopped_in_vain_ends_as_failed_and_one_that_gets_on_as_stopped(slurm, assembled):
    from trainer.distributed.launch import signals

    run = (
        "data=synthetic",
        "data.batch_size=8",
        "model.hidden=[4]",
        "trainer.duration=8",
        "trainer.validate=8",
        "warmup=none",
    )
    for hook, cause in (("setup", RestartLimitReached), ("on_train_batch_start", Interrupted)):
        assembly = assembled(*run, folder=hook)
        for restarts in range(3):
            slurm(restarts)
            record_start(assembly.folder, 3)
        assembly.trainer.callbacks.insert(0, Send(hook, USR1))
        with pytest.raises(Interrupted) as stopped:
            fit(assembly)
        signals._received.clear()
        error = assembly.checkpointing.final_error(stopped.value)
        assert type(error) is cause
        assert bool(assembly.checkpointing.stopped_by) == (cause is Interrupted), "who is given up asks for nothing"
