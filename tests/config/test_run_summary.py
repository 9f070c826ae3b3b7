"""What a run prints of itself is what it says, also where it holds what a terminal could take for markup."""

from typing import Any

import pytest

from trainer.config.run_summary import _finite, _print_result, _print_table


def test_brackets_in_names_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    best: dict[str, Any] = {"value": 0.5, "scores": {"val/loss[x]": 0.5}, "update": 3, "metric": "val/loss[x]"}
    _print_result({"best": best, "test": {}, "updates": 3, "seconds": 1.0, "folder": "/a [red]b/outputs/[x]"})
    _print_table([("groups[a]", "layer[b]: 3 numbers")])
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "best loss[x] 0.5000 after update 3, by val/loss[x]",
        "test there is nothing to test on",
        "updates 3 in 1.0 s",
        "folder /a [red]b/outputs/[x]",
        "groups[a] layer[b]: 3 numbers",
    ]


def test_no_number_of_a_result_is_one_that_json_lacks() -> None:
    nan = float("nan")
    assert _finite({"a": nan, "b": [nan, 1.0, {"c": [-nan]}]}) == {"a": None, "b": [None, 1.0, {"c": [None]}]}
