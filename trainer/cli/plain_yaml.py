"""YAML of others: refused before it is read where it is huge, deep, or grows without bound by its aliases."""

import inspect
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from trainer.lr import ConfigError

MOST_CHARACTERS, MOST_VALUES, DEEPEST = 1_000_000, 5_000, 60
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_yaml(text: str, name: str) -> None:
    """Refuse a text with more than `MOST_VALUES` values, counted with what its aliases repeat, or too deep.

    A config has a few hundred values, and the time to compose one grows with them.

    Raises:
        ConfigError: it is too large or too deep.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(f"{name} has {len(text)} characters: a config has at most {MOST_CHARACTERS}: shorten it.")
    sizes: dict[str, int] = {}
    opened: list[tuple[str | None, int]] = []
    count = 0
    try:
        for event in yaml.parse(text, _PARSER):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    raise ConfigError(
                        f"{name} has an alias, *{event.anchor}, inside of what it stands for: write it out."
                    )
                count += sizes[event.anchor]
            elif isinstance(event, yaml.ScalarEvent):
                count += 1
                sizes[event.anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, count))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = opened.pop()
                sizes[str(anchor)] = count - before + 1
            if count > MOST_VALUES:
                raise ConfigError(f"{name} has more than {MOST_VALUES} values, aliases included: shorten it.")
            if len(opened) > DEEPEST:
                raise ConfigError(f"{name} is nested more than {DEEPEST} times: flatten it.")
    except yaml.YAMLError:
        return  # whoever reads it says so


@contextmanager
def plain_yaml() -> Iterator[None]:
    """Meanwhile `OmegaConf.load`, by which Hydra reads its files, refuses such a text."""
    owner: Any = OmegaConf
    before = inspect.getattr_static(owner, "load")
    owner.load = staticmethod(_checked(owner.load))
    try:
        yield
    finally:
        owner.load = before


def _checked(load: Callable[..., Any]) -> Callable[..., Any]:
    def checked(file: Any) -> Any:
        if isinstance(file, str | Path):
            text, name = Path(file).read_text(encoding="utf-8"), str(file)
        else:
            text, name = file.read(), str(getattr(file, "name", "a config"))
        check_yaml(text, name)
        stream = io.StringIO(text)
        stream.name = name
        return load(stream)

    return checked
