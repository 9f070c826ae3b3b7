"""Every command of README, CONTRIBUTING and docs/ is run: by the test of its page, here, or not, with the reason.

Here each is run in this process and is short: 20 updates on the CPU, in a folder with a few trained runs.
"""

import importlib
import os
import shutil
import sys
from pathlib import Path

import pytest

import cadence
from cadence.__main__ import COMMANDS
from tests.distributed import worlds
from tests.pages import DOCS, Command, commands_of
from tests.sweep.test_grid import jobs
from trainer.cli.compose import compose_config
from trainer.config.settings import settings_of

ROOT = DOCS.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
ALL = [command for page in PAGES for command in commands_of(page)]
SHORT = ("trainer.accelerator=cpu", "trainer.threads=1", "trainer.duration=20", "trainer.validate=10")
SMALL = (*SHORT[:2], "trainer.duration=100", "trainer.validate=100", "model.hidden=[8]", "logger=none")

RUN_BY = {
    ("README.md", "model=mine"): "tests/test_readme.py::test_its_net_trains_by_its_commands",
    ("README.md", "trainer=ddp"): "tests/test_commands.py::test_two_processes_train_as_one_does_that_accumulates",
    ("docs/processes.md", "trainer=ddp"): (
        "tests/test_commands.py::test_two_processes_train_as_one_does_that_accumulates"
    ),
    ("docs/data.md", ""): "tests/data/test_data_page.py::test_a_command_of_the_page_trains",
    ("docs/fine_tuning.md", ""): (
        "tests/engine/test_fine_tuning_page.py::test_the_commands_of_the_page_do_what_it_says"
    ),
    ("docs/first_checks.md", ""): "tests/test_first_checks.py::test_the_commands_of_the_page_do_what_it_says",
    ("docs/lightning.md", ""): "tests/engine/test_lightning.py::test_the_module_of_the_page_learns_by_its_command",
    ("docs/own_data.md", "--config-dir"): (
        "tests/data/test_own_data.py::test_the_files_of_the_page_train_by_its_command"
    ),
    ("docs/own_data.md", ""): "tests/data/test_own_data.py::test_the_data_of_the_page_trains_by_its_commands",
    ("docs/own_optimizer.md", ""): "tests/optim/test_own_optimizer.py::PAGE",
    ("docs/own_work.md", "cadence "): "tests/test_own_work.py::test_the_commands_of_the_page_do_what_it_says",
    ("docs/own_work.md", "python "): "tests/test_own_work.py::test_the_commands_of_the_page_do_what_it_says",
    ("docs/own_work.md", "torchrun "): "tests/test_own_work.py::test_the_commands_of_the_page_do_what_it_says",
    ("docs/own_work.md", "export "): "tests/test_own_work.py::test_the_commands_of_the_page_do_what_it_says",
    ("docs/python.md", ""): "tests/test_python_page.py::page",
    ("docs/scaling.md", "scaling._target_"): (
        "tests/config/test_own_rule.py::test_the_rule_of_the_page_scales_the_rate_and_the_momentum"
    ),
    ("docs/steps.md", "steps.confident"): (
        "tests/engine/test_steps_page.py::test_the_step_of_the_page_learns_and_is_scored_by_the_metrics_of_the_task"
    ),
    ("docs/listing.md", "runs tensorboard"): (
        "tests/tools/test_runs_tensorboard.py::test_runs_of_a_sweep_are_named_by_what_differs"
    ),
    ("docs/steps.md", "task=distillation"): ("tests/engine/test_distillation.py::test_the_command_of_the_page_trains"),
}
"""Which test runs the commands of a page that contain a text; the first that fits counts."""

NOT_RUN = {
    "make ": "it makes .venv or runs the tests themselves; CI runs `make test`",
    "pip install": "it needs a package index; tests/test_wheel.py installs the wheel offline",
    ".venv/bin/pre-commit": "it changes the git folder",
    "tensorboard": "a server that does not end; tests read the event files by TensorBoard's reader",
    "wandb sync": "it needs an account",
    "sbatch": "it needs Slurm; tests/cluster runs this file where there is one",
    "hydra/launcher=submitit_slurm": "it needs Slurm; tests/cluster and tests/sweep/test_slurm_launcher.py run others",
    "hydra/launcher=ray": "it needs a Ray cluster; tests/sweep/test_ray.py runs others on this machine",
    "hydra/sweeper=search": "hours; tests/sweep/test_search.py runs short searches",
    "sweep=lr_by_optimizer": "minutes; tests/sweep/test_search.py runs short searches",
    "hydra.launcher.devices": "it needs GPUs; tests/sweep/test_device_pool.py has the pool",
    "hydra.launcher.shared_prefix": "minutes; tests/sweep/test_shared_prefix.py runs shorter ones",
    "trainer=fsdp": "it needs four GPUs; tests/distributed/test_fsdp.py runs it on the CPU",
    "torchrun": "several processes; tests/test_every_launch.py starts them",
    "benchmarks/": "minutes to hours",
    "tests/soak.py": "an hour; tests/test_soak.py runs a short one",
    "experiment=cifar10_resnet": "it needs CIFAR-10; tests/test_commands.py trains a smaller net on a part of it",
}
"""Why a command that contains a text is not run; its config is composed all the same."""


def run_by(command: Command) -> str | None:
    """The test that runs a command, if the test of a page does."""
    return next((test for (page, text), test in RUN_BY.items() if page == command.page and text in str(command)), None)


def reason(command: Command) -> str | None:
    """Why a command is not run."""
    return next((why for text, why in NOT_RUN.items() if text in str(command)), None)


HERE = [command for command in ALL if not run_by(command) and not reason(command)]
UNRUN = [one for one in ALL if one.words[0] == "cadence" and not run_by(one) and reason(one)]


def named(command: Command) -> str:
    """The name of a case."""
    return f"{command.page}:{command.line} {command}"


def overrides(command: Command) -> list[str]:
    """The words of a command that are overrides of the config, without those of Hydra."""
    return [word for word in command.words[2:] if "=" in word and not word.startswith("hydra")]


def first_and_last(command: Command) -> list[list[str]]:
    """The overrides of the first and the last run of a command."""
    if "-m" not in command.words:
        return [overrides(command)]
    zipped = next((word.partition("=")[2] for word in command.words if word.startswith("hydra.sweeper.zip=")), "")
    found = jobs(*overrides(command), zip=zipped.strip("[]").split(",") if zipped else ())
    return [found[0], found[-1]]


def test_each_entry_of_the_lists_stands_for_a_command_and_names_a_test_that_is_there():
    for (page, text), test in RUN_BY.items():
        assert [one for one in ALL if one.page == page and text in str(one) and run_by(one) == test], (page, text)
        file, _, name = test.partition("::")
        source = (ROOT / file).read_text()
        assert f"def {name}(" in source or f"{name} =" in source, test
        if file != "tests/test_commands.py":  # it has the commands themselves
            assert Path(page).name in source, f"{file} does not read {page}"
    for text in NOT_RUN:
        assert [one for one in ALL if text in str(one) and not run_by(one) and reason(one)], text


@pytest.mark.slow
@pytest.mark.sample(2)
@pytest.mark.parametrize("command", UNRUN, ids=named)
def test_the_config_of_a_command_that_is_not_run_is_composed(command):
    if "hydra/sweeper=search" in command.words:
        cases = [[word for word in overrides(command) if "interval" not in word and "," not in word]]
    else:
        cases = first_and_last(command)
    for words in cases:
        settings_of(compose_config(words))


def test_a_program_that_is_not_run_is_there_and_knows_its_options():
    makefile = (ROOT / "Makefile").read_text()
    for command in (one for one in ALL if reason(one) and not run_by(one)):
        program, *words = command.words
        if program == "make":
            assert f"\n{words[0]}:" in makefile, command
        files = [ROOT / word for word in words if word.endswith((".py", ".sbatch"))]
        assert all(file.exists() for file in files), command
        if program == "python":
            source = "".join(path.read_text() for path in files[0].parent.glob("*.py"))
            assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == [], command


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run, a sweep of two, and what the commands of the pages read."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, lr in (("first", 0.01), ("grid/0", 0.003), ("grid/1", 0.03)):
            cadence.fit(f"name={name}", f"optimizer.lr={lr}", *SHORT)
    (folder / "curve.csv").write_text("t,value\n0,1.0\n10,0.1\n")
    (folder / "my_project").mkdir()
    (folder / "my_project" / "callbacks.py").write_text(
        "import pytorch_lightning as pl\n\n\nclass Mine(pl.Callback):\n    pass\n"
    )
    return folder


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    """A copy of that folder as the working folder."""
    shutil.copytree(trained, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.syspath_prepend(tmp_path / "project")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for module in [name for name in sys.modules if name.partition(".")[0] == "my_project"]:
        monkeypatch.delitem(sys.modules, module)
    return tmp_path / "project"


@pytest.mark.slow
@pytest.mark.sample(5)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", HERE, ids=named)
def test_a_command_runs(project, command):
    program, name, *words = command.words
    assert program == "cadence"
    for logger in ("mlflow", "wandb"):
        if f"logger={logger}" in words:
            pytest.importorskip(logger)
    if "--dry-run" in words:
        process = worlds.Script(ROOT / "train.py", [*words, *SHORT[:2]], project, {**os.environ, "CADENCE_RUN_ID": ""})
        assert "nothing was trained" in process.communicate(timeout=300)[0]
        return
    if name == "train":
        if "name=first" in words:
            shutil.rmtree("outputs/first")
        given = first_and_last(command)[0]
        keys = [word.partition("=")[0] for word in given]
        run = cadence.fit(*given, *(word for word in SHORT if word.partition("=")[0] not in keys))
        assert run.result["status"] == "completed"
        return
    sweep = name in ("report", "doctor")
    replaced = {"outputs/NAME": "outputs/grid" if sweep else "outputs/first", "outputs/SWEEP": "outputs/grid"}
    short = SMALL if name in ("noise-scale", "range-test", "tune") else ()
    importlib.import_module(COMMANDS[name][0]).main([*(replaced.get(word, word) for word in words), *short])
