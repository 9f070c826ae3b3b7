"""The wheel as a user has it: installed into an empty environment, used from a project that lies elsewhere.

The environment is a venv of its own that sees none of this checkout. Its libraries are links to those of the
environment that runs the tests, and only to what the wheel asks for with the extra `digits`: pip checks that nothing
is missing, and what no requirement brings is not there. Nothing is downloaded.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from packaging.requirements import Requirement

from tests.distributed.worlds import once

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
QUICK = ("trainer.accelerator=cpu", "trainer.threads=1")
TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2")
OWN = {
    "conf/model/tiny.yaml": "_target_: models.tiny.Tiny\n_partial_: true\nwidth: 12\n",
    "conf/data/stripes.yaml": "_target_: data.stripes.Stripes\nbatch_size: 16\nsamples: 160\ntokens_per_sample: null\n"
    "seed: ${seed}\n",
    "conf/schedule/bow.yaml": "_target_: trainer.lr.function\n_partial_: true\n"
    "of: {_target_: mine.curves.bow, _partial_: true, depth: 0.5}\n",
    "conf/optimizer/signs.yaml": "_target_: mine.signs.Signs\n_partial_: true\nlr: 0.01\n",
    "conf/experiment/own.yaml": """# @package _global_
defaults:
  - override /model: tiny
  - override /data: stripes
  - override /schedule: bow
  - override /warmup: none
  - override /optimizer: signs
trainer: {duration: 20, validate: 10}
""",
    "models/tiny.py": """
from torch import nn

class Tiny(nn.Sequential):
    def __init__(self, in_features: int, classes: int, width: int = 8):
        super().__init__(nn.Linear(in_features, width), nn.Tanh(), nn.Linear(width, classes))
""",
    "data/stripes.py": """
import torch
from data.module import DataModule, Splits
from data.source import Memory

class Stripes(DataModule):
    @property
    def shape(self):
        return {"in_features": 4, "classes": 2}

    def read(self):
        inputs = torch.arange(800.0).sin().reshape(200, 4)
        targets = (inputs[:, 0] > 0).long()
        return Splits(Memory((inputs[:160], targets[:160])), Memory((inputs[160:], targets[160:])))
""",
    "mine/__init__.py": "",
    "mine/curves.py": "def bow(t, depth):\n    return 1 - depth * abs(t - 10) / 10\n",
    "mine/signs.py": """
import torch

class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr: float = 0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad.sign(), alpha=group["lr"])
""",
}
"""A user's project, by file: a net, a data set, a schedule and an optimizer, and the configs that name them."""


def asked_for(name: str, extras: set[str]) -> set[str]:
    """The distributions that one and its extras need, itself left out."""
    found: set[str] = set()
    queue = [(name, extras)]
    seen = set()
    while queue:
        name, extras = queue.pop()
        for line in distribution(name).requires or []:
            one = Requirement(line)
            wanted = any(one.marker is None or one.marker.evaluate({"extra": extra}) for extra in extras or {""})
            key = (one.name, *sorted(one.extras))
            if wanted and key not in seen:
                seen.add(key)
                queue.append((one.name, one.extras))
                found.add(one.name)
    return found - {"cadence"}


def link(name: str, site: Path) -> None:
    """Let a venv see a distribution of the environment that runs this."""
    for file in distribution(name).files or []:
        top = file.parts[0]
        if top in ("..", "__pycache__") or (site / top).exists():
            continue
        (site / top).symlink_to(Path(distribution(name).locate_file(top)).resolve())


def build(place: Path) -> None:
    """The wheel of the files that git knows, in an environment that has what it asks for."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in filter(lambda name: (ROOT / name).is_file(), names):
        target = place / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    alone = ("--no-deps", "--no-build-isolation", "--quiet")
    subprocess.run([*pip, "wheel", *alone, "-w", place / "wheel", place / "source"], check=True)
    venv = place / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(venv), "platbase": str(venv)}))
    for name in asked_for("cadence", {"", "digits"}):
        link(name, site)
    (wheel,) = (place / "wheel").iterdir()
    install = [venv / "bin/pip", "install", "--no-index", "--no-deps", "--quiet", wheel]
    subprocess.run(install, check=True, env=environment())
    shutil.rmtree(place / "source")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "wheel", build)


@pytest.fixture
def cadence(place: Path, tmp_path: Path):
    """Run the command in a folder of a user's, and say how it went."""

    def run(*words: str, code: int = 0, start: tuple[str, ...] = ("cadence",)) -> CompletedProcess[str]:
        program, *first = start
        command = [str(place / "venv/bin" / program), *first, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == code, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done

    return run


def environment() -> dict[str, str]:
    """That of the tests, without what would lead back to the checkout."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CADENCE_RUN_ID")}
    return inherited | {"CADENCE_ALLOW": "mine"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_the_wheel_holds_all_code_and_configs_and_nothing_else(place: Path) -> None:
    (wheel,) = (place / "wheel").iterdir()
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tops = ("cadence", "trainer", "models", "data", "hydra_plugins")
    files = [path for top in tops for path in (ROOT / top).rglob("*") if path.suffix in (".py", ".css", ".html", ".js")]
    expected = {str(path.relative_to(ROOT)) for path in files}
    configs = {f"cadence/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert held == expected | configs


def test_the_environment_is_complete_and_knows_nothing_of_the_checkout(place: Path, cadence) -> None:
    cadence("check", start=("pip",))
    where = cadence("-c", "import trainer, sys; print(trainer.__file__, *sys.path)", start=("python",)).stdout
    assert str(ROOT) not in where.replace(str(place), "")
    cadence("-c", "import optuna", start=("python",), code=1)


def test_version_and_help_need_neither_torch_nor_hydra(place: Path, cadence) -> None:
    assert re.fullmatch(r"cadence \d+\.\d+\.\d+\n", cadence("--version").stdout)
    told = cadence("--help").stdout
    assert all(f"\n  {name} " in told for name in ("train", "plan", "range-test", "report", "doctor", "noise-scale"))
    for word in ("--version", "--help"):
        done = cadence("-X", "importtime", "-m", "cadence", word, start=("python",))
        assert not re.search(r"\| +(torch|hydra|numpy)$", done.stderr, re.MULTILINE)
    assert "there is no such command: take train, plan" in cadence("trian", code=2).stderr


def test_it_trains_the_digits_and_tells_what_is_missing(cadence, tmp_path: Path) -> None:
    cadence("train", "optimizer=adamw", "schedule=cosine_warmup", "name=first", "trainer.duration=5ep", *QUICK)
    assert result(tmp_path / "outputs/first")["test"]["accuracy"] > 0.85
    told = cadence("train", "optimizer=lars", code=2).stderr
    assert told.endswith(
        "needs pytorch_optimizer, which is not installed (extra optimizers): pip install 'pytorch-optimizer>=4.1'.\n"
    )
    assert cadence("plan", code=2).stderr.endswith("pip install 'matplotlib>=3.10'.\n")
    assert cadence("report", "outputs", code=2).stderr.endswith("'pyarrow>=18' 'optuna>=5'.\n")
    assert "first" in cadence("doctor", "outputs/first").stdout


def test_a_project_elsewhere_trains_and_plans_with_parts_of_its_own(cadence, project: Path) -> None:
    own = ("--config-dir", "conf", "experiment=own")
    cadence("train", *own, "name=mine", *QUICK)
    assert result(project / "outputs/mine")["updates"] == 20
    told = cadence("plan", *own, "--no-files").stdout
    assert "T = 20 updates of 16 samples" in told
    planned = json.loads((project / "outputs/mine/plan.json").read_text())
    assert planned["peak_lr"] == 0.01
    found = cadence("train", "hydra.searchpath=[conf]", "experiment=own", "--cfg", "job").stdout
    assert "_target_: models.tiny.Tiny" in found


@pytest.mark.sample(1)
@pytest.mark.parametrize("fork", ["false", "true"])
def test_a_project_elsewhere_sweeps(cadence, project: Path, fork: str) -> None:
    words = ("-m", "--config-dir", "conf", "experiment=own", "name=grid", "optimizer.lr=0.01,0.02")
    cadence("train", *words, f"hydra.launcher.fork={fork}", *QUICK)
    assert [result(project / "outputs/grid" / job)["updates"] for job in "01"] == [20, 20]


@pytest.mark.sample(0)
@pytest.mark.parametrize(
    ("start", "words"),
    [
        (("cadence", "train"), ("trainer=ddp", "trainer.devices=2")),
        (("python", "-m", *TORCHRUN, "-m", "cadence", "train"), ("trainer=torchrun",)),
    ],
    ids=["ddp", "torchrun"],
)
def test_two_processes_of_the_command_train_one_run(cadence, project: Path, start, words) -> None:
    cadence("--config-dir", "conf", "experiment=own", "name=two", *words, *QUICK, start=start)
    assert result(project / "outputs/two")["updates"] == 20
    assert [path.name for path in (project / "outputs").iterdir()] == ["two"]
    assert json.loads((project / "outputs/two/plan.json").read_text())["global_batch"] == 32
