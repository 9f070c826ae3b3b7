"""How many processes a run has is read from what has started them, and what does not fit is refused."""

import os
import subprocess
import sys

import pytest

from tests.distributed.worlds import ROOT
from trainer.config.settings import settings_of
from trainer.distributed.environment import Slurm, environment, reachable
from trainer.distributed.launch.launcher import (
    PARENT,
    ignore_other_ranks,
    is_restart,
    launcher,
    rank,
    started_by,
    write_job,
)
from trainer.lr import ConfigError

TORCHRUN = {
    **{"TORCHELASTIC_RUN_ID": "t", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
    **{"GROUP_WORLD_SIZE": "2", "LOCAL_RANK": "1"},
}
SRUN = {
    **{"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "1", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6"},
    **{"SLURM_STEP_TASKS_PER_NODE": "2(x3)", "SLURM_NTASKS": "6", "SLURM_STEP_NODELIST": "localhost,n[2-3]"},
}


BY_HAND = {
    **{"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"},
}
NODE = {"NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
CHILD = {"LOCAL_RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """Set what a launcher sets; nothing else is there, and all is undone."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TORCHELASTIC", "MASTER_")) or name in (*TORCHRUN, "NODE_RANK", PARENT):
            monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))

    def by(variables, **more):
        os.environ.update({**variables, **more})

    return by


def refused(says, *overrides, compose):
    with pytest.raises(ConfigError) as refusal:
        settings_of(compose(*overrides))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_torchrun_and_srun_tell_devices_and_nodes(compose, started):
    started(TORCHRUN)
    settings = settings_of(compose("trainer=torchrun")).trainer
    assert (settings.devices, settings.nodes, settings.world) == (2, 2, 4)
    os.environ.clear()
    started(SRUN)
    settings = settings_of(compose("trainer=slurm")).trainer
    assert (settings.devices, settings.nodes, settings.world) == (2, 3, 6)


def test_a_trainer_that_its_launcher_has_not_started_is_refused(compose, started):
    refused("torchrun has not started this: use torchrun", "trainer=torchrun", compose=compose)
    refused("slurm has not started this: use srun cadence train", "trainer=slurm", compose=compose)
    started(TORCHRUN)
    refused("slurm has not started this", "trainer=slurm", compose=compose)
    refused("take torchrun for both, or numbers", "trainer=torchrun", "trainer.devices=2", compose=compose)


def test_as_many_processes_on_each_node_or_a_refusal(compose, started):
    started(SRUN, SLURM_STEP_TASKS_PER_NODE="2(x2),1", SLURM_STEP_NUM_TASKS="5")
    refused(
        "SLURM_STEP_TASKS_PER_NODE=2(x2),1: the nodes do not have the same number of tasks",
        "trainer=slurm",
        compose=compose,
    )
    os.environ.clear()
    started(TORCHRUN, WORLD_SIZE="3", LOCAL_WORLD_SIZE="1")
    refused("3 processes on 2 nodes, 1 of them on this one", "trainer=torchrun", compose=compose)


@pytest.mark.parametrize("words", [["trainer=ddp", "trainer.devices=2"], ["trainer=cpu"]])
def test_another_world_than_the_launchers_is_refused_with_both_numbers(compose, started, words):
    started(TORCHRUN)
    world = 2 if "ddp" in words[0] else 1
    refused(f"torchrun has started 4 processes, but trainer.devices={world} × trainer.nodes=1 are {world}", *words,
            compose=compose)  # fmt: skip
    os.environ.clear()
    started(SRUN)
    refused("slurm has started 6 processes", *words, compose=compose)


def test_the_right_world_in_numbers_is_taken_and_one_task_may_start_processes_of_its_own(compose, started):
    started(TORCHRUN)
    assert settings_of(compose("trainer=ddp", "trainer.devices=2", "trainer.nodes=2")).trainer.world == 4
    os.environ.clear()
    started(SRUN, SLURM_STEP_NUM_TASKS="1", SLURM_STEP_TASKS_PER_NODE="1")
    assert settings_of(compose("trainer=ddp", "trainer.devices=2")).trainer.world == 2
    assert type(environment()[0]).__name__ == "LightningEnvironment"


def test_slurm_gives_the_first_node_and_a_port_of_the_step(started):
    started(SRUN)
    found = Slurm()
    assert (found.main_address, found.world_size(), found.global_rank()) == ("localhost", 6, 5)
    assert found.main_port == 15000 + 12 * 7 + 1
    assert not found.auto_requeue
    os.environ["MASTER_ADDR"] = "10.0.0.9"
    assert found.main_address == "10.0.0.9"


def test_a_first_node_that_nobody_knows_is_refused_and_not_waited_for():
    with pytest.raises(ConfigError, match=r"nowhere\.invalid, the first node, does not resolve here: set MASTER_ADDR"):
        reachable("nowhere.invalid")


def test_only_the_job_that_has_begun_a_run_goes_on_with_it(started, tmp_path):
    started(SRUN)
    assert not is_restart(tmp_path)
    write_job(tmp_path)
    assert not is_restart(tmp_path)
    os.environ["SLURM_RESTART_COUNT"] = "1"
    assert is_restart(tmp_path)
    os.environ["SLURM_JOB_ID"] = "13"
    assert not is_restart(tmp_path)


@pytest.mark.parametrize(
    ("variables", "by", "is_rank"),
    [
        ({}, "", 0),
        (TORCHRUN, "torchrun", 3),
        (SRUN, "slurm", 5),
        ({**SRUN, "LOCAL_RANK": "1", "RANK": "9"}, "slurm", 5),
        (BY_HAND, "hand", 1),
        (NODE, "nodes", 1),
        ({**CHILD, PARENT: f"{os.getppid()} 2"}, "cadence", 3),
        ({**CHILD, "LOCAL_RANK": "0", PARENT: f"{os.getpid()} 2"}, "nodes", 1),
        ({**CHILD, "LOCAL_RANK": "0", "NODE_RANK": "0", PARENT: f"{os.getpid()} 0"}, "", 0),
        ({"RANK": "1"}, "", 0),
        ({"LOCAL_RANK": "1", "NODE_RANK": "1"}, "", 0),
        ({"SLURM_PROCID": "1", "SLURM_JOB_ID": "7"}, "", 0),  # as salloc and sbatch leave it, without a step
        ({"TORCHELASTIC_RUN_ID": "t"}, "", 0),
    ],
)
def test_a_rank_is_what_the_launcher_says_that_has_started_this_process(started, variables, by, is_rank):
    started(variables)
    assert (started_by(), rank(), launcher()) == (by, is_rank, by if by in ("torchrun", "slurm") else None)
    ignore_other_ranks()
    assert (started_by(), rank()) == (by, is_rank)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a"}, ""),
        ({"RANK": "1", "WORLD_SIZE": "1"}, "RANK=1 in the environment: ignored, since neither torchrun nor srun has "),
        ({"LOCAL_RANK": "2", "NODE_RANK": "1"}, "LOCAL_RANK=2, NODE_RANK=1 in the environment: ignored"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, "SLURM_PROCID=1 in the environment: ignored"),
        ({"OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_RANK=1 in the environment: ignored"),
        ({**SRUN, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "RANK": "1"}, "RANK=1 in the environment: ignored"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, ""),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2", PARENT: f"{os.getppid()} 0"}, ""),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", PARENT: "1 0"}, ""),  # started by a program that a rank has started
        (SRUN, ""),
        (TORCHRUN, ""),
        (BY_HAND, ""),
    ],
)
def test_other_ranks_are_told_once_and_hidden_from_lightning(started, variables, told):
    started(variables)
    assert ignore_other_ranks()[: len(told) or None] == told
    if started_by() in ("", "slurm"):
        assert not {"RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", PARENT} & set(os.environ)
    assert ignore_other_ranks() == "" or "OMPI" in told


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_processes_that_would_train_alone_are_refused(started, name):
    started({name: "2", "RANK": "1"})
    with pytest.raises(ConfigError, match=f"{name}=2: each of 2 processes would train alone: start them with torchrun"):
        ignore_other_ranks()


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2", "RANK": "1"}, {"RANK": "x"}, BY_HAND, NODE])
def test_a_command_that_does_not_train_is_no_rank(started, variables):
    started(variables)
    ignore_other_ranks(trains=False)
    assert (started_by(), rank()) == ("", 0)
    assert not {"RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR"} & set(os.environ)


def test_a_command_about_a_run_tells_of_a_stray_rank_and_another_does_not(started, tmp_path):
    started({"RANK": "1", "OMP_NUM_THREADS": "1"})
    for words, told in (("plan data=synthetic --no-files", True), ("runs .", False)):
        command = [sys.executable, "-m", "cadence", *words.split()]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ("RANK=1 in the environment: ignored" in done.stderr) == told, done.stderr


def test_a_rank_whose_parent_has_ended_before_it_began_does_not_train_alone(started):
    started({**CHILD, PARENT: "999999999 0"})
    with pytest.raises(SystemExit, match="process 999999999, which has started this rank, has ended"):
        ignore_other_ranks()


def test_ranks_by_hand_are_as_many_as_the_run_has(compose, started):
    started(BY_HAND)
    assert settings_of(compose("trainer=ddp", "trainer.devices=2")).trainer.world == 2
    refused("WORLD_SIZE=2, but trainer.devices=1 × trainer.nodes=1 are 1: each process", compose=compose)
    os.environ.clear()
    started(NODE)
    assert settings_of(compose("trainer=ddp", "trainer.devices=2", "trainer.nodes=2")).trainer.world == 4
    refused("NODE_RANK=1, but trainer.devices=1 × trainer.nodes=1 are 1: each node", compose=compose)


@pytest.mark.slow
def test_a_stray_rank_trains_as_the_first_one_and_says_so(started, tmp_path):
    started({"RANK": "1", "LOCAL_RANK": "1", "SLURM_PROCID": "1", "SLURM_JOB_ID": "7", "OMP_NUM_THREADS": "1"})
    words = ("name=stray", "trainer.duration=2", "trainer.accelerator=cpu", "callbacks=none", "warmup=none")
    command = [sys.executable, str(ROOT / "train.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("RANK=1, LOCAL_RANK=1, SLURM_PROCID=1 in the environment: ignored")
    assert list((tmp_path / "outputs/stray").glob("events.out.tfevents*"))
