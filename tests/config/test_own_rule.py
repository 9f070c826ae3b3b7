"""The page on batch sizes holds: the rule that it makes runs by its command, and every rule is in its table."""

import re
from pathlib import Path

import pytest

from tests.pages import DOCS, overrides_of

ROOT = Path(__file__).parent.parent.parent
PAGE = "scaling.md"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The overrides of the page's command, with the page's code where Python finds it."""
    return overrides_of(PAGE, "mine.py", tmp_path, monkeypatch)


def test_the_rule_of_the_page_scales_the_rate_and_the_momentum(assembled, command):
    run = assembled("logger=none", *command)
    (group, *_) = run.module.spec.optimizer().param_groups
    assert run.resolved.plan.policy.scale == 4.0
    assert group["momentum"] == pytest.approx(0.8)


def test_every_rule_is_in_the_table():
    rules = {path.stem for path in (ROOT / "conf" / "scaling").glob("*.yaml")} - {"own"}
    assert rules <= set(re.findall(r"^\| `(\w+)` ", (DOCS / PAGE).read_text(), re.MULTILINE))
