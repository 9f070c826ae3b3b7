"""The text of a config is the one that OmegaConf writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from trainer.cli.compose import compose_config
from trainer.cli.plain_yaml import yaml_text

WORDS = st.sampled_from(["yes", "on", "1e-3", "0x10", "1_000", "null", "~", "${optimizer.lr}", "a: b", "#", "", " x "])
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.text("aé'\" \n:-", max_size=9))
TREES = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
)


@pytest.mark.parametrize("words", [(), ("optimizer=lion", "data=text", "data.path='${oc.env:HOME}/ü.txt'")])
def test_the_text_of_a_config_is_that_of_omegaconf(words):
    source = OmegaConf.to_container(compose_config(words))
    assert yaml_text(source) == OmegaConf.to_yaml(source)


@given(st.dictionaries(st.text("abc", min_size=1), TREES, max_size=4))
def test_any_nest_is_read_back(tree):
    tree = OmegaConf.to_container(OmegaConf.create({"top": OmegaConf.create(yaml_text(tree))}))["top"]
    assert OmegaConf.to_container(OmegaConf.create(yaml_text(tree))) == tree or "nan" in str(tree)


def test_a_list_that_stands_twice_is_written_twice():
    twice = [1, 2]
    assert yaml_text({"a": twice, "b": twice}) == OmegaConf.to_yaml({"a": [1, 2], "b": [1, 2]})


def test_an_entry_that_was_written_before_is_not_mixed_up_with_an_equal_one():
    """1, 1.0 and True are equal in Python, and so are a text and its key elsewhere."""
    for value in (1, 1.0, True, "1", [1], [1.0], {"a": 1}, {"a": True}):
        assert yaml_text({"a": value, "b": value}) == OmegaConf.to_yaml({"a": value, "b": value})
        assert yaml_text({"b": value}) == OmegaConf.to_yaml({"b": value})
