"""The gallery shows every option as it is now, and each of its commands does what the picture says."""

import re
import subprocess
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from trainer.cli.hydra_internals import VERSION_BASE
from trainer.lr import ConfigError
from trainer.lr.lint import ERROR, lint
from trainer.tools.gallery import command as gallery
from trainer.tools.gallery import exhibit
from trainer.tools.gallery.page import anchor, page, wrapped
from trainer.tools.gallery.picture import picture

SCRIPT = Path(__file__).parents[2] / "scripts" / "gallery.py"
DOCS = SCRIPT.parents[1] / "docs"
NUMBER = re.compile(r"-?\d+\.?\d*")


@pytest.fixture(scope="module")
def shown():
    return exhibit.exhibits()


def points(svg):
    """The numbers of all paths of a picture."""
    return [float(number) for path in re.findall(r' d="([^"]*)"', svg) for number in NUMBER.findall(path)]


def test_help_shows_an_example_to_copy(python):
    told = subprocess.run([python, SCRIPT, "--help"], capture_output=True, text=True)
    assert told.returncode == 0
    assert "\n    python scripts/gallery.py" in told.stdout


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, python):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        gallery.main(["--out", str(tmp_path / "file")])
    told = subprocess.run([python, SCRIPT, "--out", tmp_path / "file" / "deep"], capture_output=True, text=True)
    assert (told.returncode, len(told.stderr.splitlines())) == (2, 1)


def test_the_yaml_beside_a_picture_is_that_of_the_option_in_short_lines():
    line = "period: null              # the length of a cycle: updates, or a number with ep, %, samples or tokens"
    assert wrapped(f"{line}\nshort: 1 # as it is\n").split("\n") == [
        "period: null              # the length of a cycle: updates, or",
        "                          # a number with ep, %, samples or",
        "                          # tokens",
        "short: 1 # as it is",
    ]
    long = "points: [[0, 1.0], [50%, 0.1], [75%, 0.01]] # when, and the share of the peak"
    assert wrapped(long).split("\n")[0] == "points: [[0, 1.0], [50%, 0.1], [75%, 0.01]]"


@pytest.mark.sample(0)
@pytest.mark.slow
def test_every_option_of_the_curve_has_a_picture(shown):
    named = {one.title for one in shown}
    for group in ("schedule", "warmup", "cooldown"):
        assert {f"{group}={name}" for name in exhibit.options(group)} <= named
    assert all((DOCS / "gallery" / f"{one.stem}.svg").exists() for one in shown)


@pytest.mark.sample(0)
@pytest.mark.slow
def test_the_page_is_up_to_date(shown):
    assert (DOCS / "gallery.md").read_text(encoding="utf-8") == page(shown), "run python scripts/gallery.py"
    stems = {one.stem for one in shown}
    assert {path.stem for path in (DOCS / "gallery").iterdir()} == stems, "a picture of what is no more: remove it"


@pytest.mark.sample(0)
@pytest.mark.slow
def test_the_pictures_are_up_to_date_small_and_the_same_each_time(shown):
    for one in shown:
        kept = (DOCS / "gallery" / f"{one.stem}.svg").read_text(encoding="utf-8")
        drawn = picture(one.plan, one.floor)
        assert points(kept) == pytest.approx(points(drawn.decode()), abs=0.01), f"{one.stem}: run scripts/gallery.py"
        assert len(drawn) < 15_000
    assert picture(one.plan, one.floor) == drawn


@pytest.mark.sample(0)
@pytest.mark.slow
def test_every_link_of_the_contents_leads_to_one_heading(shown):
    text = page(shown)
    headings = [anchor(title) for title in re.findall(r"^##+ (.*)$", text, re.MULTILINE)]
    links = re.findall(r"\]\((#[^)]*)\)", text)
    assert len(links) > len(shown)
    assert all(headings.count(link) == 1 for link in links)


@pytest.mark.sample(0)
@pytest.mark.slow
def test_each_command_trains_as_it_stands(shown):
    for one in shown:
        assert [found for found in lint(one.plan) if found.level == ERROR] == [], one.title


@pytest.mark.sample(0)
@pytest.mark.slow
def test_a_combination_is_the_same_as_a_command_and_as_an_experiment(shown, tmp_path):
    combined = [one for one in shown if one.family == exhibit.COMBINED]
    (tmp_path / "experiment").mkdir()
    with initialize_config_dir(str(exhibit.CONF), **VERSION_BASE):
        for one in combined:
            (tmp_path / "experiment" / f"{one.stem}.yaml").write_text(one.yaml)
            words = [f"hydra.searchpath=[file://{tmp_path}]", f"experiment={one.stem}"]
            _, plan = exhibit.planned(words, tmp_path)
            assert plan.curves == one.plan.curves, one.title
            assert compose("train", one.words).schedule == compose("train", words).schedule
    assert len(combined) >= 10
