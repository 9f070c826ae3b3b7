"""A package that is missing is one line with the name of the extra that brings it, and exit code 2."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hydra_plugins.search_sweeper import SearchSweeper, SearchSweeperConf
from trainer.cli.extras import EXTRAS, install_command, missing_extra, needed
from trainer.cli.messages import user_error_message
from trainer.cli.run_cli import run_cli
from trainer.lr import ConfigError
from trainer.tools.plan import command as plan
from trainer.tools.range_test import command as range_test
from trainer.tools.report import command as report

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "pytorch_optimizer": "pytorch-optimizer",
    "mlflow": "mlflow-skinny",
}

LEFT_OUT = {"ray", "mlflow", "wandb"}
"""Ray has no build for each Python; the others are large."""


def gone(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make the import of a package fail, as where it is not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working folder that is empty."""
    monkeypatch.chdir(tmp_path)


def test_each_extra_of_the_table_installs_its_package_and_all_has_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for package, extra in EXTRAS.items():
        installs = [re.split(r"[\[><=]", one)[0] for one in extras[extra]]
        assert DISTRIBUTIONS.get(package, package) in installs, package
    (everything,) = extras["all"]
    named = re.search(r"\[(.*)\]", everything)
    assert named is not None
    assert {*named[1].split(",")} == {*EXTRAS.values()} - LEFT_OUT
    core = {re.split(r"[\[><=]", one)[0] for one in project["dependencies"]}
    assert not core & {DISTRIBUTIONS.get(package, package) for package in EXTRAS}


def test_what_is_installed_is_imported_and_other_failures_stay() -> None:
    assert needed("json", "this") is sys.modules["json"]
    with pytest.raises(ModuleNotFoundError):
        needed("no_such_package_at_all", "this")
    assert missing_extra(ModuleNotFoundError("No module named 'x'", name="x")) is None


def test_a_late_import_that_fails_is_told_wherever_it_stands() -> None:
    error = RuntimeError("in a callback")
    error.__cause__ = ModuleNotFoundError("No module named 'scipy.stats'", name="scipy.stats")
    told = f"this needs scipy, which is not installed (extra report): {install_command('report')}."
    assert user_error_message(error) == told


@pytest.mark.parametrize(
    ("package", "tool", "words", "told"),
    [
        (
            "matplotlib",
            plan,
            [],
            "the picture (--no-files leaves it out) needs matplotlib, which is not installed (extra plots): "
            "pip install 'matplotlib>=3.10'.",
        ),
        (
            "matplotlib",
            range_test,
            [],
            "the picture (--no-files leaves it out) needs matplotlib, which is not installed (extra plots): pip ",
        ),
        *(
            (
                package,
                report,
                ["outputs"],
                f"the report needs {package}, which is not installed (extra report): {install_command('report')}.",
            )
            for package in ("plotly", "matplotlib", "pandas")
        ),
        (
            "sklearn",
            range_test,
            ["--no-files"],
            "data needs sklearn, which is not installed (extra digits): pip install 'scikit-learn>=1.5'.",
        ),
        (
            "pytorch_optimizer",
            range_test,
            ["optimizer=lars", "--no-files"],
            "optimizer._target_=pytorch_optimizer.LARS needs pytorch_optimizer, which is not installed "
            "(extra optimizers): pip install 'pytorch-optimizer>=4.1'.",
        ),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_command_names_the_extra_before_it_trains(package, tool, words, told, monkeypatch, capsys) -> None:
    gone(monkeypatch, package)
    assert run_cli(lambda: tool.main(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(told)


def test_without_optuna_a_search_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gone(monkeypatch, "optuna")
    settings = OmegaConf.structured(SearchSweeperConf)
    with pytest.raises(ConfigError, match=r"hydra/sweeper=search needs optuna, .*: pip install 'optuna>="):
        SearchSweeper(**{name: value for name, value in settings.items() if name != "_target_"})
