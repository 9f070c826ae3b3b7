"""The page on data and a net of one's own holds: its files train by its command. What is no such data is refused."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data.module import DataModule
from tests.pages import section
from trainer.lr import ConfigError
from trainer.run import fit

ROOT = Path(__file__).parent.parent.parent
MODULE, SETS = (section("own_data.md", title) for title in ("A DataModule", "Data sets, DataLoaders, .*?"))
FILES = ("data/rings.py", "conf/data/rings.yaml", "models/bumps.py", "conf/model/bumps.yaml")
SHORT = ("trainer.duration=100", "trainer.accelerator=cpu", "trainer.threads=1", "logger=none", "name=own")


@pytest.mark.slow
def test_the_files_of_the_page_train_by_its_command(tmp_path):
    for name, code in zip(FILES, re.findall(r"```(?:python|yaml)\n(.*?)```", MODULE, re.DOTALL), strict=True):
        assert f"`{name}`" in MODULE
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    (line,) = re.findall(r"```bash\n(.*?)```", MODULE, re.DOTALL)
    command = [sys.executable, "-m", *shlex.split(line), *SHORT]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert float(re.search(r"best .*accuracy (\S+)", ran.stdout)[1]) > 0.75


def commands():
    (block,) = re.findall(r"```bash\n(.*?)```", SETS, re.DOTALL)
    return [shlex.split(line) for line in block.replace("\\\n", "").splitlines()]


@pytest.mark.parametrize("words", commands(), ids=["dataset", "loaders", "lightning", "stream"])
def test_the_data_of_the_page_trains_by_its_commands(assembled, tmp_path, monkeypatch, words):
    (code,) = re.findall(r"```python\n(.*?)```", SETS, re.DOTALL)
    (tmp_path / "points.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "points", raising=False)
    assert words[:2] == ["cadence", "train"]
    short = ("logger=none", "model.hidden=[16]", "optimizer.lr=0.02", "trainer.duration=100", "trainer.validate=50")
    run = assembled(*words[2:], *short)
    fit(run)
    assert run.checkpointing.best["scores"]["val/accuracy"] > 0.7


class NoRead(DataModule):
    def __init__(self, *, split: object, standardize: bool, label_noise: float, **base: Any) -> None:
        super().__init__(**base)


@pytest.mark.parametrize(
    ("target", "allow", "told"),
    [
        ("pytorch_lightning.LightningDataModule", "pytorch_lightning", "make it a subclass of data.module.DataModule"),
        ("torch.nn.Identity", "torch.nn", "Identity"),
        (f"{__name__}.NoRead", __name__, "data: NoRead has no method read"),
    ],
)
def test_data_that_is_no_data_module_is_refused(assembled, target, allow, told):
    with pytest.raises(ConfigError, match=told):
        assembled("logger=none", f"data._target_={target}", f"allow=[{allow}]")
