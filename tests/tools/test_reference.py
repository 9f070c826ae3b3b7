"""The reference has every key of every YAML file with its default and a line, and is up to date."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from trainer.cli.compose import CONF
from trainer.lr import ConfigError
from trainer.tools.reference import command, docstrings
from trainer.tools.reference.meanings import with_meanings
from trainer.tools.reference.options import GLOBAL, options

DOCS = CONF.parent / "docs"
FILES = [path for path in sorted(CONF.rglob("*.yaml")) if path.parent.name != "help"]


@pytest.fixture(scope="module")
def pages():
    return command.pages()


def check(node, prefix, part):
    """Find the keys of a config in its part of the page, each with its default and a line."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if key.startswith("_") or (key == "defaults" and isinstance(value, list)):
            continue
        found = re.findall(rf"^- `{re.escape(name)}(?:=(.*?))?`(?: calls `[\w.]+`)?: (.+)$", part, re.MULTILINE)
        if isinstance(value, dict) and not (found and found[0][0]):
            assert value, name
            check(value, f"{name}.", part)
        else:
            ((default, meaning),) = found
            assert meaning.strip(), name
            assert OmegaConf.to_container(OmegaConf.create(f"_: {default}")) == {"_": value}, name


def test_both_pages_are_up_to_date(pages):
    for name, text in pages.items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, "run make reference"


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_each_key_is_there_with_its_default_and_a_line(pages, file):
    group = "" if file.parent == CONF else file.parent.name
    title = f"### {group}={file.stem}" if group else "## Settings of no group"
    (part,) = re.findall(rf"^{re.escape(title)}\n(.*?)(?=^##|\Z)", pages["reference.md"], re.DOTALL | re.MULTILINE)
    whole = not group or GLOBAL in file.read_text().split("\n")
    check(OmegaConf.to_container(OmegaConf.load(file)), "" if whole else f"{group}.", part)


def test_a_key_without_a_line_is_refused(tmp_path):
    for name, text in {"train.yaml": "seed: 0 # a seed\n", "model/bare.yaml": "width: 3\n"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=r"conf/model/bare.yaml: model.width has no comment"):
        with_meanings(options(tmp_path))


def test_the_comment_of_a_parent_and_of_a_chosen_option_says_what_a_key_is(tmp_path):
    for name, text in {
        "train.yaml": "defaults:\n  - model: wide\n",
        "model/wide.yaml": "# Wide.\nwidth: 3  # of the net\n",
        "model/wider.yaml": "# Wider.\ndefaults: [wide, _self_]\nwidth: 4\n",
        "experiment/one.yaml": f"{GLOBAL}\n# One.\ndefaults:\n  - override /model: wider\nmodel:\n  width: 5\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = with_meanings(options(tmp_path))
    (one,), (_, wider) = found["experiment"], found["model"]
    assert [(one.key, one.default, one.meaning) for one in (*one.settings, *wider.settings)] == [
        ("model.width", "5", "of the net"),
        ("model.width", "4", "of the net"),
    ]


def test_a_docstring_is_taken_apart():
    def documented(first, second):
        """What it does.

        More of it.

        Args:
            first: one line,
                and another.
            second: the rest.

        Raises:
            ValueError: never.

        >>> documented(1, 2)
        """

    found = docstrings.parsed(documented)
    assert found.text == "What it does.\n\nMore of it.\n\n>>> documented(1, 2)"
    assert found.sections["Args"] == {"first": "one line, and another.", "second": "the rest."}
    assert found.sections["Raises"] == {"ValueError": "never."}
    assert docstrings.fields("Settings. `one`: first, or\nthe last. `a`, `b`: both.") == {
        "one": "first, or the last",
        "a": "both",
        "b": "both",
    }


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        command.main(["--out", str(tmp_path / "file")])


def test_the_links_of_the_contents_lead_to_one_heading(pages):
    text = pages["reference.md"]
    headings = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in re.findall(r"^##+ (.*)$", text, re.M)]
    links = re.findall(r"\]\(#([^)]*)\)", text)
    assert len(links) > len(FILES)
    assert all(headings.count(link) == 1 for link in links)
    assert Path(DOCS / "python.md").exists()
