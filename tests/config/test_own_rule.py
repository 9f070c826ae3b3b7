"""The page on batch sizes holds: the rule that it makes runs by its command, and every rule is in its table."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "scaling.md").read_text()


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The words of the page's command, with the page's code where Python finds it."""
    (tmp_path / "mine.py").write_text(block("python"))
    monkeypatch.syspath_prepend(tmp_path)
    words = shlex.split(block("bash").replace("\\\n", ""))
    assert words[:2] == ["cadence", "train"]
    return words[2:]


def test_the_rule_of_the_page_scales_the_rate_and_the_momentum(assembled, command):
    run = assembled("logger=none", *command)
    (group, *_) = run.module.spec.optimizer().param_groups
    assert run.resolved.plan.policy.scale == 4.0
    assert group["momentum"] == pytest.approx(0.8)


def test_every_rule_is_in_the_table():
    rules = {path.stem for path in (ROOT / "conf" / "scaling").glob("*.yaml")} - {"own"}
    assert rules <= set(re.findall(r"^\| `(\w+)` ", PAGE, re.MULTILINE))
