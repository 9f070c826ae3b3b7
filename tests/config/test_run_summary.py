"""What a run prints of itself is what it says, also where it holds what a terminal could take for markup."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainer.config.run_summary import _finite, _print_result, _print_table
from trainer.config.tensorboard_tabs import hparams_of


def named(name: str, quiet: bool = False, allow: tuple[str, ...] = ()) -> Any:
    """What the end of a run reads of its settings."""
    return SimpleNamespace(name=name, allow=allow, trainer=SimpleNamespace(quiet=quiet))


def test_brackets_in_names_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    best: dict[str, Any] = {"value": 0.5, "scores": {"val/loss[x]": 0.5}, "update": 3, "metric": "val/loss[x]"}
    result = {"best": best, "test": {}, "updates": 3, "seconds": 1.0, "folder": "/a [red]b/outputs/[x]"}
    _print_result(result, named("[x]"), "stretch")
    _print_table([("groups[a]", "layer[b]: 3 numbers")])
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "best loss[x] 0.5000 after update 3, by val/loss[x]",
        "test there is nothing to test on",
        "updates 3 in 1.0 s",
        "folder /a [red]b/outputs/[x]",
        "longer the same with name='[x]' resume=auto resume.policy=stretch",
        "and another trainer.duration",
        "groups[a] layer[b]: 3 numbers",
    ]


def test_the_end_names_the_commands_that_follow(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best: dict[str, Any] = {"value": 0.5, "scores": {"val/loss": 0.5}, "update": 3, "metric": "val/loss"}
    result = {
        "best": best,
        "test": {"loss": 0.5},
        "updates": 3,
        "seconds": 1.0,
        "folder": str(tmp_path / "outputs/a b"),
    }
    (tmp_path / "outputs/a b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    _print_result(result, named("a b", quiet=True), None)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["best", "test", "updates", "folder"]
    _print_result(result, named("a b"), "stretch")
    (tmp_path / "outputs/a b/events.out.tfevents.1").touch()
    _print_result({**result, "test": {}}, named("a b"), "stretch")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[4] == "next cadence predict 'outputs/a b' predictions.csv"
    _print_result(result, named("a b", allow=("nets", "rows")), None)
    assert "cadence predict 'outputs/a b' predictions.csv 'allow=[nets,rows]'\n" in capsys.readouterr().out
    assert lines[-4:-2] == ["next tensorboard --logdir outputs", "cadence doctor 'outputs/a b'"]
    assert lines[-2:] == [
        "longer the same with name='a b' resume=auto resume.policy=stretch",
        "and another trainer.duration",
    ]


def test_a_name_that_hydra_cannot_read_is_quoted_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    best = {"value": None, "scores": {}, "update": 3, "metric": "val/loss"}
    _print_result({"best": best, "test": {}, "updates": 3, "seconds": 1.0, "folder": "/a"}, named("für=1"), "stretch")
    assert """ name='"für=1"' resume=auto""" in capsys.readouterr().out


def test_the_hparams_are_settings_that_say_something_and_the_scores() -> None:
    config = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.0}, "plateau": {}, "init": None}
    assert hparams_of(config, {"val/loss": 0.5}) == {
        "optimizer": "SGD",
        "optimizer.lr": 0.1,
        "optimizer.momentum": 0.0,
        "score val/loss": 0.5,
    }


def test_no_number_of_a_result_is_one_that_json_lacks() -> None:
    nan = float("nan")
    assert _finite({"a": nan, "b": [nan, 1.0, {"c": [-nan]}]}) == {"a": None, "b": [None, 1.0, {"c": [None]}]}
