"""A few points of the sweep, and that its cases have each optimizer, average and rule there is."""

import pytest

from tests.conftest import ROOT
from tests.resume.resumed_cases import ONE, TWO, words_of
from tests.resume.sweep_of_points import KINDS, differences, sweep

NEEDS_MORE = {"optimizer": {"module", "own"}, "groups": {"module"}, "callbacks": {"none"}}
"""Options that need a net or an optimizer of the user's, or that do nothing."""


def test_runs_resumed_at_points_of_several_kinds_leave_the_same(tmp_path):
    assert sweep(["average swa", "early stopping and plateau"], 2, tmp_path) == (2, [])


def test_a_difference_is_found():
    assert list(differences({"a": [1, 2.0], "b": "x"}, {"a": [1, 2.5], "b": "x"})) == ["/a/1: 2.0 → 2.5"]
    assert list(differences({"a": 0.0}, {"a": -0.0})) == ["/a: 0.0 → -0.0"]
    assert list(differences({"a": 1}, {})) == ["/a is in one of them"]


@pytest.mark.parametrize(
    "group", ["optimizer", "average", "plateau", "hyper_schedule", "groups", "measure", "callbacks"]
)
def test_the_cases_have_each_option(group):
    options = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} - NEEDS_MORE.get(group, set())
    given = [word.partition("=")[2] for case in ONE for word in words_of(case) if word.startswith(f"{group}=")]
    named = {name for value in given for name in value.strip("[]").split(",")} | {"default", "none"}
    assert options <= named
    assert len(ONE) + len(TWO) >= 60
    assert len(KINDS) == 6
