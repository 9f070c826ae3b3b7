"""What a config reads from the environment: it may be a secret, and is kept as it was written, `${oc.env:NAME}`.

The resolver of OmegaConf is replaced by one that takes note of each value that it gives.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.resolvers import oc

from trainer.cli.hydra_internals import register_resolver

SHORTEST = 6
"""Texts with fewer characters are no secrets, and may stand in any word. Nor are numbers with fewer than 10 digits."""

_given: dict[str, str] = {}
_reads: list[str] = []


def register_environment() -> None:
    """Make `${oc.env:NAME}` take note of what it gives; call it before the first config is composed."""
    register_resolver("oc.env", _read)


def _read(key: str, *default: Any) -> Any:
    value = oc.env(key, *default)
    _reads.append(key)
    if isinstance(value, str) and value not in _given and not re.fullmatch(r"[\d.eE+-]+(?<!\d{10})", value):
        _given.update((form, key) for form in _forms(value) if len(form) >= SHORTEST)
    return value


def _forms(value: str) -> set[str]:
    """How a text may stand in a message: as it is, line by line, in one line, and as Python or JSON quote it."""
    found = {value, *(line.strip() for line in value.splitlines())}
    for text in tuple(found):
        single = repr(f'"{text}')[2:-1]
        found |= {
            single,
            single.replace("\\'", "'"),
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
        }
    return found | {" ".join(text.split()) for text in found}


def without_secrets(text: str) -> str:
    """A text in which each value that a config has read from the environment is replaced by where it came from."""
    for value in sorted(_given, key=len, reverse=True):
        text = text.replace(value, f"${{oc.env:{_given[value]}}}")
    return text


def tree_without_secrets(tree: Any) -> Any:
    """The same with each text in it replaced like that."""
    if isinstance(tree, Mapping):
        return {
            without_secrets(key) if isinstance(key, str) else key: tree_without_secrets(v) for key, v in tree.items()
        }
    if isinstance(tree, list | tuple):
        return [tree_without_secrets(value) for value in tree]
    return without_secrets(tree) if isinstance(tree, str) else tree


def stored(cfg: DictConfig, keep_numbers: tuple[str, ...] = ()) -> dict[str, Any]:
    """The resolved config, in which what follows from the environment stays as it was written.

    Args:
        cfg: the config, which has no missing values.
        keep_numbers: keys, or groups, whose numbers are kept as values, since a resumed run is checked by them.
    """
    return {str(key): _stored(cfg, key, str(key), keep_numbers) for key in cfg}


def _stored(node: Any, key: Any, path: str, numbers: tuple[str, ...]) -> Any:
    raw, before = node._get_node(key), len(_reads)
    value = node[key]
    plain = OmegaConf.to_container(value, resolve=True) if isinstance(value, DictConfig | ListConfig) else value
    if len(_reads) == before:
        return plain
    if raw._is_interpolation():
        kept = isinstance(plain, int | float) and f"{path}.".startswith(tuple(f"{name}." for name in numbers))
        return plain if kept else raw._value()
    if isinstance(value, DictConfig):
        return {inner: _stored(value, inner, f"{path}.{inner!s}", numbers) for inner in value}
    return [_stored(value, i, f"{path}.{i}", numbers) for i in range(len(value))]


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config as plain values, with the environment of now."""
    if "${" not in repr(config):
        return dict(config)
    made: Any = OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=True)
    return dict(made)
