"""The front door: it is short, its links lead somewhere, and its own net trains by its command."""

import json
import os
import re
import shlex
import subprocess

import pytest

from tests.distributed import worlds
from tests.pages import DOCS

README = DOCS.parent / "README.md"
PAGES = [README, DOCS.parent / "CONTRIBUTING.md", DOCS.parent / "CHANGELOG.md", *DOCS.rglob("*.md")]


def test_it_has_at_most_120_lines():
    assert len(README.read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS.parent)))
def test_each_link_leads_to_a_file_and_to_a_heading_of_it(page):
    for target, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        found = page.parent / target if target else page
        assert found.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings], target


def test_its_net_trains_by_its_commands(tmp_path):
    text = README.read_text()
    files = {"nets.py": "python", "conf/model/mine.yaml": "yaml"}
    for name, language in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        written = re.search(rf"`{name}`:\n\n```{language}\n(.*?)```", text, re.DOTALL)[1]
        assert written == (README.parent / "benchmarks/first_hour/cadence" / name).read_text(), "docs/comparison.md"
        (tmp_path / name).write_text(written)
    flats = (README.parent / "examples" / "tabular" / "flats.csv").read_text()
    (tmp_path / "houses.csv").write_text(flats.replace("let_fast", "sold", 1))
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if "model=mine" in line]
    assert len(commands) == 2
    for name, (_, _, *words) in zip(("digits", "houses"), commands):
        more = (f"name={name}", "trainer.accelerator=cpu", "trainer.threads=1", "trainer.duration=3ep")
        process = worlds.Script(README.parent / "train.py", [*words, *more], tmp_path, dict(os.environ))
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert json.loads((tmp_path / f"outputs/{name}/result.json").read_text())["test"]["accuracy"] > 0.7


def test_each_command_that_it_names_is_one(python):
    told = subprocess.run([python, "-m", "cadence", "--help"], cwd=README.parent, capture_output=True, text=True).stdout
    named = set(re.findall(r"cadence ([a-z][a-z-]+) ", README.read_text().partition("## What one types")[2]))
    assert named >= {"train", "plan", "tune", "report", "predict", "test", "export"}
    assert all(re.search(rf"^\s*{name}\b", told, re.MULTILINE) for name in named), told
