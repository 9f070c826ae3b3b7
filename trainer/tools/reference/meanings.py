"""What each key of conf/ is, in one line: the comment beside it, or where there is none, what says the same."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from trainer.lr import ConfigError
from trainer.tools.reference.docstrings import argument, named, summary
from trainer.tools.reference.options import CALLS, Option, Setting


class Known(NamedTuple):
    """The options by group, and the options that train.yaml chooses."""

    groups: Mapping[str, list[Option]]
    defaults: Mapping[str, str]


def with_meanings(groups: Mapping[str, list[Option]]) -> dict[str, list[Option]]:
    """The options with a line for each key.

    The line is the comment beside the key. Where there is none, it comes from the docstring of what is called, from the
    option whose keys this one has too, or from the option of the group that train.yaml chooses. A file whose keys are
    those of the whole run takes it from the options that it chooses.

    Raises:
        ConfigError: a key has no such line; a class of another package needs none.
    """
    known = Known(groups, groups[""][0].chosen)
    return {
        group: [one._replace(settings=[_explained(one, setting, known) for setting in one.settings]) for one in members]
        for group, members in groups.items()
    }


def _explained(option: Option, setting: Setting, known: Known) -> Setting:
    meaning = _meaning(option, setting, known)
    if not meaning and not setting.default.startswith(CALLS):
        place = f"{option.group}/{option.name}.yaml".lstrip("/")
        raise ConfigError(f"conf/{place}: {setting.key} has no comment: write beside it what it is, in one line.")
    return setting._replace(meaning=meaning)


def _meaning(option: Option, setting: Setting, known: Known) -> str:
    return next((found for found in _sources(option, setting, known) if found), "")


def _sources(option: Option, setting: Setting, known: Known) -> Iterator[str]:
    """The lines that say what a key is, the best first."""
    yield setting.meaning
    if setting.default.startswith(CALLS):
        yield summary(setting.default.removeprefix(CALLS))
    yield argument(named(setting.target), setting.key.rpartition(".")[2]) if setting.target else ""
    if value := re.fullmatch(r"\$\{([\w.]+)\}", setting.default):
        yield f"the value of {value[1]}"
    for group, name in _others(option, setting, known):
        for other, one in _having(known.groups, group, name, setting.key):
            if other != option:
                yield _meaning(other, one, known)
    if option.whole:
        yield from (one.meaning for one in option.settings if setting.key.startswith(f"{one.key}."))


def _others(option: Option, setting: Setting, known: Known) -> Iterator[tuple[str, str]]:
    """The options, as (group, name), in which the same key means the same."""
    yield from ((option.group, parent) for parent in option.parents)
    group = setting.key.partition(".")[0] if option.whole else option.group
    if group in option.chosen:
        yield group, option.chosen[group]
    for other in (
        one for chosen in option.chosen.items() for one in known.groups.get(chosen[0], ()) if one.name == chosen[1]
    ):
        if group in other.chosen:
            yield group, other.chosen[group]
    yield group, known.defaults.get(group, "")


def _having(groups: Mapping[str, list[Option]], group: str, name: str, key: str) -> Iterator[tuple[Option, Setting]]:
    """The places of a key in an option and in those whose keys that option has."""
    for option in groups.get(group, ()):
        if option.name == name:
            yield from ((option, one) for one in option.settings if one.key == key)
            for parent in option.parents:
                yield from _having(groups, group, parent, key)
