"""Nets of other packages by config: nested nodes, and calls that take any name."""

import functools

import pytest

from trainer.config.instantiate import instantiate
from trainer.config.resolve import resolve
from trainer.config.settings import settings_of
from trainer.lr import ConfigError


def accepting(function):
    """As transformers wraps the constructors of its configs: it takes more names than the signature shows."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **{name: value for name, value in kwargs.items() if name != "more"}), kwargs

    return wrapper


@accepting
def wrapped(width: int = 3):
    return width


def strict(width: int = 3):
    return width


def bare():
    return None


def open_ended(width: int = 3, **more):
    return width, more


def test_where_a_call_takes_any_name_the_call_decides():
    path = "tests.config.test_models_of_others"
    make = lambda name, **given: instantiate({"_target_": f"{path}.{name}", **given}, "model", ["tests"])  # noqa: E731
    assert make("open_ended", other=1) == (3, {"other": 1})
    assert make("wrapped", width=2, more=1) == (2, {"width": 2, "more": 1})
    with pytest.raises(ConfigError, match=r"model\.widht is not known to strict: did you mean width"):
        make("strict", widht=2)
    with pytest.raises(ConfigError, match=r"model\.width is not known to bare: it takes no settings\.$"):
        make("bare", width=2)
    with pytest.raises(ConfigError, match="widht"):
        make("wrapped", widht=2)
    with pytest.raises(ConfigError, match=r"model\.width='x' does not fit"):
        make("wrapped", width="x")


def test_a_config_of_transformers_takes_num_labels_also_nested():
    pytest.importorskip("transformers")
    node = {
        "_target_": "transformers.BertForSequenceClassification",
        "config": {
            "_target_": "transformers.BertConfig",
            "num_labels": 4,
            "hidden_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "vocab_size": 11,
        },
    }
    net = instantiate(node, "model", ["transformers"])
    assert net.classifier.out_features == 4
    node["config"]["hidden_size"] = "wide"
    with pytest.raises(ConfigError, match=r"model\.config\.hidden_size='wide' does not fit"):
        instantiate(node, "model", ["transformers"])


def test_what_is_not_allowed_is_told_with_what_is_allowed_already(compose):
    for words, says in (
        (["allow=[monai]", "model._target_=sklearn.Net"], r"trust it by allow=\[monai,sklearn\]"),
        (["model._target_=tomllib.Net"], "tomllib cannot be one: a config must not call it"),
        (["model._target_=nowhere.Net"], "there is no package or module nowhere: check its spelling"),
        (["data=dataset", "+data.train._target_=tests.data.own_sets.Rows", "data.collate_fn=pad", "allow=[tests]"],
         r"give a function, as {_target_: module.name, _partial_: true} or null"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            resolve(settings_of(compose(*words)))
