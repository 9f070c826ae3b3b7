"""A user's project joins from outside: its configs by --config-dir and hydra.searchpath, its packages by the folder."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.cli.compose import ROOT, absolute_config_path, add_config_options, compose_config, find_own_packages
from trainer.cli.run_cli import run_cli
from trainer.lr import ConfigError
from trainer.tools.noise_scale import command as noise_scale
from trainer.tools.plan import command as plan
from trainer.tools.range_test import command as range_test

HALF = "_target_: trainer.lr.linear\n_partial_: true\nfloor: 0.5\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a schedule of its own, and a model."""
    (tmp_path / "conf/schedule").mkdir(parents=True)
    (tmp_path / "conf/schedule/half.yaml").write_text(HALF)
    (tmp_path / "conf/short.yaml").write_text("defaults: [train, _self_]\ntrainer: {duration: 30}\n")
    return tmp_path


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    return parser.parse_intermixed_args(words)


@pytest.mark.parametrize("how", ["flag", "path"])
def test_an_option_of_the_users_own_is_found(project: Path, how: str) -> None:
    more = {"flag": ["--config-dir", f"{project}/conf"], "path": [f"hydra.searchpath=[file://{project}/conf]"]}[how]
    given = options("schedule=half", *more)
    cfg = compose_config(given.overrides, given)
    assert cfg.schedule.floor == 0.5
    assert cfg.optimizer._target_ == "torch.optim.AdamW"


def test_a_config_of_the_users_own_may_take_the_place_of_train(project: Path) -> None:
    given = options("--config-dir", f"{project}/conf", "--config-name", "short")
    assert compose_config(given.overrides, given).trainer.duration == 30


def test_a_folder_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(lambda: plan.main(["--config-dir", "nowhere"])) == 2
    assert capsys.readouterr().err == "--config-dir=nowhere is not a folder: name the one that holds your configs.\n"


@pytest.mark.parametrize("how", [("--config-dir", "conf"), ("hydra.searchpath=[conf]",)])
def test_the_plan_takes_it(project: Path, how: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    plan.main([*how, "schedule=half", "warmup=none", "--updates", "4", "--out", "there"])
    assert json.loads(Path("there.json").read_text())["lr"] == pytest.approx([0.003, 0.002625, 0.00225, 0.001875])


@pytest.mark.parametrize("how", [("--config-dir", "conf"), ("hydra.searchpath=[conf]",)])
@pytest.mark.parametrize("tool", [range_test, noise_scale])
def test_the_tools_that_train_take_it(project: Path, how: tuple[str, ...], tool, monkeypatch, capsys) -> None:
    monkeypatch.chdir(project)
    small = ["--updates", "2", "--at", "0"] if tool is noise_scale else ["--updates", "40", "--seeds", "1"]
    words = [*small, "--out", "there"]
    assert run_cli(lambda: tool.main([*how, *words, "schedule=half", "trainer.threads=1"])) == 0, capsys.readouterr()
    found = json.loads(Path("there.json").read_text())
    assert "schedule=half" in found["overrides"]
    if tool is range_test:
        assert found["options"]["config_dir"] == ("conf" if "--config-dir" in how else None)


def test_a_relative_config_path_is_taken_from_the_working_folder() -> None:
    here = Path.cwd()
    given = ["-cp", "conf", "--config-path=../other", "--config-path", "pkg://mine", "optimizer=sgd"]
    assert absolute_config_path(given) == [
        *("-cp", f"{here}/conf", f"--config-path={here.parent}/other", "--config-path", "pkg://mine", "optimizer=sgd")
    ]


def test_the_working_folder_comes_after_the_packages_of_cadence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(ROOT), str(tmp_path), "/other"])
    find_own_packages()
    assert sys.path == [str(ROOT), "/other", str(tmp_path)]
    find_own_packages()
    assert sys.path == [str(ROOT), "/other", str(tmp_path)]


@pytest.mark.parametrize("with_init", [False, True])
def test_models_and_data_of_the_user_join_the_shipped_ones(tmp_path: Path, with_init: bool) -> None:
    for package in ("models", "data"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "own_part.py").write_text("here = True\n")
        if with_init:
            (tmp_path / package / "__init__.py").write_text("raise AssertionError('it would hide ours')\n")
    code = (
        "from trainer.cli.compose import find_own_packages as f; f(); import data.own_part, models.own_part, models.mlp"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=100)


@pytest.mark.sample(1)
@pytest.mark.parametrize(("own", "code"), [("class MLP: pass\n", 2), (None, 0)], ids=["another", "the same"])
def test_a_module_of_the_users_own_with_the_name_of_a_shipped_one_is_refused(
    project: Path, own: str | None, code: int
) -> None:
    (project / "models").mkdir()
    (project / "models/mlp.py").write_text(own or (ROOT / "models/mlp.py").read_text())
    words = ["groups=layer_decay", "trainer.duration=20", "--no-files"]
    done = subprocess.run(
        [sys.executable, "-c", "from cadence.__main__ import main; raise SystemExit(main())", "plan", *words],
        cwd=project, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert ("are both models.mlp: rename yours." in done.stderr) == bool(own)


def test_a_config_that_is_no_yaml_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "conf/schedule/broken.yaml").write_text("a: 1\nb: [\n")
    assert run_cli(lambda: plan.main(["schedule=broken", "--config-dir", f"{project}/conf", "--no-files"])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{project}/conf/schedule/broken.yaml, line 3: ")


def test_several_options_are_taken_by_the_groups_that_add_entries_and_by_no_other() -> None:
    chosen = ["hyper_schedule=[weight_decay_tied,label_smoothing_linear]", "logger=[csv,tensorboard]"]
    cfg = compose_config(chosen)
    assert [*cfg.hyper_schedule] == ["weight_decay", "label_smoothing"]
    assert [*cfg.logger] == ["csv", "tensorboard"]
    with pytest.raises(ConfigError, match="^schedule=\\[linear,cosine\\]: schedule takes one option"):
        compose_config([*chosen, "schedule=[linear,cosine]"])
