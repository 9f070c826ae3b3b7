"""YAML is read by libyaml and once, with the result and the errors of OmegaConf itself."""

import inspect
from pathlib import Path

import hydra.conf
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from trainer.cli import plain_yaml
from trainer.cli.compose import CONF
from trainer.lr import ConfigError

FOLDERS = (CONF, Path(hydra.conf.__file__).parent)
FILES = sorted(path for folder in FOLDERS for path in folder.rglob("*.yaml"))
PIECES = [
    *"a:- ,[]{}#&*|>'\"%@`?\n~=<\t",
    "\n  ",
    ": ",
    "- ",
    "1e3",
    "1.5",
    "0x1f",
    "1_0",
    "12:30",
    "yes",
    "null",
    "<<",
]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029\ufeff"), max_size=12),
    st.sampled_from(
        ["1e-3", "1_000", "${a.b}", "${oc.env:X,1}", "on", "2020-01-01", "0o7", ".5", "-.inf", "???", "a: b"]
    ),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("ab_-1 é", max_size=4) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def read(load, text):
    """What a loader makes of a text: the content with its types, or its error."""
    try:
        made = load(text)
        return repr(OmegaConf.to_container(made)), type(made), [type(key) for key in made]
    except Exception as error:
        return type(error), str(error)


def by_omegaconf(text):
    plain_yaml.check_yaml(text, "some.yaml")
    return OmegaConf.load(plain_yaml._stream(text, "some.yaml"))


def by_us(text):
    with plain_yaml.plain_yaml():
        return by_omegaconf(text)


@pytest.fixture(autouse=True)
def nothing_known():
    plain_yaml._known.clear()


def test_every_shipped_file_reads_the_same_each_time():
    assert len(FILES) > 200
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        expected = read(by_omegaconf, text)
        assert [read(by_us, text) for _ in range(3)] == [expected] * 3, path
        assert isinstance(expected[0], str), path


@given(TREES, st.booleans(), st.sampled_from([None, "'", '"', "|", ">"]))
def test_any_tree_reads_the_same_each_time(tree, flow, style):
    text = yaml.safe_dump(tree, default_flow_style=flow, default_style=style, allow_unicode=True)
    expected = read(by_omegaconf, text)
    assert [read(by_us, text) for _ in range(3)] == [expected] * 3


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_any_text_that_omegaconf_reads_reads_the_same(text):
    """Libyaml also takes a few texts that the parser in Python refuses, such as `a` with a tab at its end."""
    ours, expected = read(by_us, text), read(by_omegaconf, text)
    assert ours == expected or (isinstance(expected[0], type) and issubclass(expected[0], yaml.YAMLError))


@pytest.mark.parametrize(
    "text",
    ["a: b: c", "a: [1", "a: 1\na: 2", "a: @", "{a: 1", "a:\n\t- 1", "&a [*a]", "- 1\nb: 2", "a: %", "!!x 1", "a: 'b"],
)
def test_a_broken_text_fails_with_the_same_message(text):
    ours = read(by_us, text)
    assert ours == read(by_omegaconf, text)
    assert isinstance(ours[0], type), text


def test_libyaml_reads_the_files(monkeypatch):
    monkeypatch.setattr(yaml.scanner.Scanner, "fetch_more_tokens", lambda *_: pytest.fail("Python reads"))
    assert by_us("a: {b: [1, 2e3]}") == {"a": {"b": [1, 2000.0]}}


def test_what_is_read_again_is_a_copy_and_an_edited_file_is_read_anew(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: [1]\n")
    with plain_yaml.plain_yaml():
        for _ in range(4):
            made = OmegaConf.load(path)
            assert made == {"a": [1]}
            made.a.append(2)
            made.b = 3
        path.write_text("a: [4]\n")
        assert OmegaConf.load(path) == {"a": [4]}


def test_the_texts_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(plain_yaml, "MOST_TEXTS", 3)
    for number in range(10):
        assert by_us(f"a: {number}") == {"a": number}
        assert len(plain_yaml._known) <= 3


def test_a_text_is_checked_once_where_the_reading_is_replaced_twice(monkeypatch):
    before, seen = inspect.getattr_static(OmegaConf, "load"), []
    monkeypatch.setattr(plain_yaml, "check_yaml", lambda text, name: seen.append(name))
    with plain_yaml.plain_yaml(), plain_yaml.plain_yaml():
        by_omegaconf("a: 1")
    assert seen == ["some.yaml"] * 2  # once here, once by `by_omegaconf`
    assert inspect.getattr_static(OmegaConf, "load") is before


def test_a_text_that_grows_by_its_aliases_is_refused():
    with pytest.raises(ConfigError, match="aliases included"):
        by_us("a: &a [" + "x," * 80 + "]\nb: &b [" + "*a," * 80 + "]\n")
