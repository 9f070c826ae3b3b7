"""The page on data and a net of one's own holds: its files train by its command. What is no such data is refused."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from data.module import DataModule
from trainer.lr import ConfigError

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "own_data.md").read_text()
FILES = ("data/rings.py", "conf/data/rings.yaml", "models/bumps.py", "conf/model/bumps.yaml")
SHORT = ("trainer.duration=100", "trainer.accelerator=cpu", "trainer.threads=1", "logger=none", "name=own")


@pytest.mark.slow
def test_the_files_of_the_page_train_by_its_command(tmp_path):
    for name, code in zip(FILES, re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE, re.DOTALL), strict=True):
        assert f"`{name}`" in PAGE
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    (line,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    command = [sys.executable, "-m", *shlex.split(line), *SHORT]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert float(re.search(r"best .*accuracy (\S+)", ran.stdout)[1]) > 0.75


class NoRead(DataModule):
    def __init__(self, **settings: object) -> None:
        super().__init__(batch_size=32)


@pytest.mark.parametrize(
    ("target", "allow", "told"),
    [
        ("pytorch_lightning.LightningDataModule", "pytorch_lightning", "make it a subclass of data.module.DataModule"),
        ("torch.nn.Identity", "torch", "makes a Identity, but a DataModule is needed"),
        (f"{__name__}.NoRead", __name__, "data: NoRead has no method read"),
    ],
)
def test_data_that_is_no_data_module_is_refused(assembled, target, allow, told):
    with pytest.raises(ConfigError, match=told):
        assembled("logger=none", f"data._target_={target}", f"allow=[{allow}]")
