"""A value of the environment is in no file that a run, a sweep or a tool leaves, and in nothing they print."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import cadence
from tests.distributed import worlds
from trainer.cli.environment import register_environment, resolved, stored, tree_without_secrets, without_secrets
from trainer.cli.messages import one_line
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
    return [
        str(path) for path in files if CANARY.encode() in path.read_bytes() or CANARY in str(path.relative_to(folder))
    ]


def command(folder: Path, *words: str, code: int | None = 0) -> str:
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
    assert code in (None, done.returncode), done.stdout[-1500:] + done.stderr[-1500:]
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


@pytest.mark.parametrize(
    "secret", ["first line\n  a 'second' one", "quo\"te'd\\and back", "wörd & <more>", "123456789012345", "a\tb\tc\td"]
)
def test_a_secret_is_found_however_a_message_writes_it(secret, monkeypatch):
    monkeypatch.setenv("CADENCE_ODD", secret)
    cfg = OmegaConf.create({"a": "${oc.env:CADENCE_ODD}"})
    told = [f"x={cfg.a} y", f"x={cfg.a!r} y", f"x={json.dumps([cfg.a])} y", f"x={[cfg.a, chr(39)]} y"]
    for text in [*told, *(one_line(text) for text in told)]:
        assert "${oc.env:CADENCE_ODD}" in without_secrets(text)
        assert not any(line.strip() in without_secrets(text) for line in secret.splitlines())


def test_a_run_from_python_keeps_no_secret_and_its_config_can_be_used(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    run = cadence.fit(*RUN, TEXT, "name=first", "trainer.checkpoint=20")
    longer = [word for word in RUN if "duration" not in word]
    again = cadence.fit(*longer, TEXT, "name=first", "resume=auto", "resume.policy=stretch", "trainer.duration=60")
    assert leaks(tmp_path) == []
    assert CANARY not in "".join(capfd.readouterr())
    for one in (run, again):
        assert one.config.task.class_names[9] == CANARY
        assert torch.isfinite(torch.as_tensor(one.test()["loss"]))
    assert settings_of(run.config).task["class_names"][9] == CANARY
    run.export("net.pt")
    assert leaks(tmp_path) == []


SHORT = (
    (2, "train", *RUN, "name=failed", "optimizer.lr=${oc.env:CADENCE_CANARY}"),
    (0, "train", "-m", *RUN, TEXT, "name=sweep", "seed=0,1", "hydra.launcher.fork=true"),
    (0, "report", "outputs/sweep"),
)
ALL = (
    *SHORT,
    (0, "train", *RUN, TEXT, "name=run", "trainer.checkpoint=20"),
    (0, "train", *RUN[:-2], TEXT, "name=run", "resume=auto", "trainer.duration=60", "resume.policy=stretch", RUN[-1]),
    (1, "train", *RUN, TEXT, "name=diverged", "optimizer.lr=1e30", "optimizer=sgd", "lint.ignore=[huge-lr]"),
    (2, "train", *RUN, "name=path", "init.path=${oc.env:CADENCE_CANARY}"),
    (0, "train", "-m", *RUN, TEXT, "name=search", "hydra/sweeper=search", "optimizer.lr=interval(0.001,0.01)")
    + ("hydra.sweeper.trials=2", "hydra.launcher.fork=true"),
    (None, "range-test", *RUN, TEXT, "--updates=30", "--seeds=1"),
    (0, "predict", "outputs/run", "predictions.csv"),
    (0, "test", "outputs/run", "--json", "scores.json"),
    (0, "export", "outputs/run", "net.pt"),
    (0, "plan", *RUN, TEXT, "--csv"),
    (0, "plan", "--applied", "outputs/run"),
    (0, "doctor", "outputs/run"),
    (0, "report", "outputs/search"),
)
"""The exit code and the words of commands."""


def run_all(folder: Path, commands: Sequence[tuple]) -> None:
    """Run the commands in a folder, and look for the secret in what they leave and print."""
    for code, *words in commands:
        shown = command(folder, *words, code=code)
        assert CANARY not in shown, words
        assert leaks(folder) == [], words


@pytest.mark.slow
def test_commands_keep_no_secret(tmp_path):
    run_all(tmp_path, SHORT)


if __name__ == "__main__":
    os.environ["CADENCE_CANARY"] = CANARY
    with tempfile.TemporaryDirectory() as place:
        run_all(Path(place), ALL)
    print(f"{len(ALL)} commands: the secret is in no file and in no line")
