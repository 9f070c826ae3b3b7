"""The words that start a run again are those of its command line, and where there was none, those of the command."""

import sys

import pytest
from omegaconf import OmegaConf

from trainer.cli.typed_program import typed_overrides, typed_program

JOB = OmegaConf.create(
    {"overrides": {"task": ["optimizer.lr=1", "a=${x}"], "hydra": ["hydra.searchpath=[conf]", "hydra.mode=RUN"]}}
)
TYPED = ["optimizer.lr=1", "hydra.searchpath=[conf]", "a=${x}"]


@pytest.fixture(autouse=True)
def main_of_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], []),
        (["--config-dir", "my conf"], ["--config-dir", "my conf"]),
        (["-cd=conf", "--config-name=own"], ["--config-name", "own", "--config-dir", "conf"]),
    ],
)
def test_a_command_line_is_kept_with_its_flags(flags, shown, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", *flags, *TYPED])
    assert typed_program(JOB) == ["python", "train.py", *shown]


@pytest.mark.parametrize(
    "argv",
    [
        ["pytest", "-q", "tests/test_commands.py"],
        ["pytest", "tests/test_commands.py"],
        ["pytest", "-c", "pytest.ini", *TYPED],
        ["pytest", "--config", "x", *TYPED],
        ["ipykernel_launcher.py", "-f", "kernel.json"],
        [""],
    ],
    ids=" ".join,
)
def test_a_command_line_of_something_else_is_not_taken(argv, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert typed_program(JOB) == ["cadence", "train"]
    assert capsys.readouterr() == ("", "")


def test_of_hydras_overrides_the_search_path_is_kept() -> None:
    assert typed_overrides(JOB) == ["hydra.searchpath=[conf]", "optimizer.lr=1", "a=${x}"]
