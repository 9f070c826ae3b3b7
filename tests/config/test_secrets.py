"""A value of the environment is in no file that a run, a sweep or a tool leaves, and in nothing they print."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import cadence
from tests.distributed import worlds
from trainer.cli.environment import register_environment, resolved, stored, tree_without_secrets, without_secrets
from trainer.config.settings import settings_of

CANARY = "s3cret-canary-7f31"
RUN = ("callbacks=none", "trainer.accelerator=cpu", "trainer.threads=1", "trainer.duration=40", "model.hidden=[8]")
TEXT = "+task.class_names=[a,b,c,d,e,f,g,h,i,'${oc.env:CADENCE_CANARY}']"


@pytest.fixture(autouse=True)
def canary(monkeypatch):
    """A secret in the environment."""
    monkeypatch.setenv("CADENCE_CANARY", CANARY)
    register_environment()


def leaks(folder: Path) -> list[str]:
    """The files below a folder that hold the secret, as bytes of their content or of their name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        str(path) for path in files if CANARY.encode() in path.read_bytes() or CANARY in str(path.relative_to(folder))
    ]


def command(folder: Path, *words: str, code: int = 0) -> str:
    """Run a command in a folder, and give what it prints."""
    environment = os.environ | {"PYTHONPATH": str(worlds.ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cadence", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout[-1500:] + done.stderr[-1500:]
    return done.stdout + done.stderr


def test_the_record_of_a_config_keeps_what_is_read_from_the_environment_as_it_is_written():
    cfg = OmegaConf.create(
        {
            "model": {"a": "${oc.env:CADENCE_CANARY}", "b": "x/${oc.env:CADENCE_CANARY}/y", "c": "${.a}", "n": 3},
            "data": {"all": "${model}", "list": [1, "${model.b}"], "none": "${oc.env:NO_SUCH_VARIABLE,plain}"},
            "optimizer": {"lr": "${oc.decode:${oc.env:CADENCE_RATE}}", "text": "${oc.env:CADENCE_CANARY}"},
            "other": {"lr": "${optimizer.lr}", "same": "${model.n}"},
        }
    )
    os.environ["CADENCE_RATE"] = "0.25"
    made = stored(cfg, ("optimizer",))
    assert made["model"] == {**OmegaConf.to_container(cfg.model), "n": 3}
    assert made["data"]["all"] == "${model}"
    assert made["data"]["list"] == [1, "${model.b}"]
    assert made["optimizer"] == {"lr": 0.25, "text": "${oc.env:CADENCE_CANARY}"}
    assert made["other"] == {"lr": "${optimizer.lr}", "same": 3}
    assert CANARY not in repr(made)
    assert resolved(made) == OmegaConf.to_container(cfg, resolve=True)
    assert without_secrets(f"no {CANARY}!") == "no ${oc.env:CADENCE_CANARY}!"
    assert tree_without_secrets({"a": [CANARY, 1]}) == {"a": ["${oc.env:CADENCE_CANARY}", 1]}
    del os.environ["CADENCE_RATE"]


def test_a_run_from_python_keeps_no_secret_and_its_config_can_be_used(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    run = cadence.fit(*RUN, TEXT, "name=first", "trainer.checkpoint=20")
    again = cadence.fit(*RUN, TEXT, "name=first", "resume=auto", "resume.policy=stretch", "trainer.duration=60")
    assert leaks(tmp_path) == []
    assert CANARY not in "".join(capfd.readouterr())
    for one in (run, again):
        assert one.config.task.class_names[9] == CANARY
        assert torch.isfinite(torch.as_tensor(one.test()["loss"]))
    assert settings_of(run.config).task["class_names"][9] == CANARY
    run.export("net.pt")
    assert leaks(tmp_path) == []


@pytest.mark.slow
def test_commands_keep_no_secret(tmp_path):
    shown = command(tmp_path, "train", *RUN, TEXT, "name=run")
    shown += command(tmp_path, "train", *RUN, "name=failed", "optimizer.lr=${oc.env:CADENCE_CANARY}", code=2)
    shown += command(tmp_path, "train", "-m", *RUN, TEXT, "name=sweep", "seed=0,1", "hydra.launcher.fork=true")
    shown += command(tmp_path, "report", "outputs/sweep")
    shown += command(tmp_path, "predict", "outputs/run", "predictions.csv")
    shown += command(tmp_path, "plan", *RUN, TEXT, "--csv")
    shown += command(tmp_path, "doctor", "outputs/run")
    assert leaks(tmp_path) == []
    assert CANARY not in shown
