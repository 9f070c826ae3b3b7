"""The page with every key of conf/, its default and what it is."""

import json
from dataclasses import MISSING, fields
from typing import Any

from trainer.tools.gallery.page import anchor
from trainer.tools.reference import docstrings
from trainer.tools.reference.docstrings import escaped, parsed, summary
from trainer.tools.reference.options import CALLS, Option, Setting

HEAD = """# Reference of every config key

Each group is a folder of `conf/`, and each option a file in it: `GROUP=OPTION` chooses one. Each key is shown as it is
typed, with its default. `???` must be given, and `null` stands for none. A key that no file has needs a plus, as in
`+model.depth=3`. `_target_` is the class or function that is called with the keys beside it; with `_partial_: true` the
run calls it later, with the rest of its arguments. `cadence train --cfg job` prints the config of a command.

Made by `python scripts/reference.py` from conf/ and docstrings; do not edit it by hand.
"""
RUN = "Settings of no group"


def page(groups: dict[str, list[Option]], plugins: dict[str, type]) -> str:
    """The whole page, in Markdown.

    Args:
        groups: the options by group, with a line for each key.
        plugins: the settings of each launcher and sweeper of Hydra, as hydra/launcher=process, in a dataclass.
    """
    (train,) = groups[""]
    parts = [HEAD, "## Contents\n", _contents(groups, train.chosen)]
    parts += [f"## {RUN}\n", f"{train.about[0]}\n", _keys(train.settings)]
    for group, options in groups.items():
        if group:
            parts += [f"## {group}\n", *(_shown(option) for option in options)]
    parts.append(
        "## hydra\n\nThe settings of the launcher and of the sweeper, which train the jobs of `cadence train -m`.\n"
    )
    parts += [_plugin(title, settings) for title, settings in plugins.items()]
    return "\n".join(parts)


def _contents(groups: dict[str, list[Option]], defaults: dict[str, str]) -> str:
    rows = []
    for group, options in groups.items():
        if group:
            links = " · ".join(f"[{one.name}]({anchor(f'{group}={one.name}')})" for one in options)
            rows.append(f"- [{group}]({anchor(group)}), `{defaults[group]}` by default: {links}")
    return "\n".join(rows) + "\n"


def _shown(option: Option) -> str:
    """The heading, what the option is, what it calls and chooses, and its keys."""
    parts = [f"### {option.group}={option.name}\n"]
    parts.append(_about(option))
    if option.target and option.target != "???":
        parts.append(f"Calls `{option.target}`. {escaped(summary(option.target))}".rstrip() + "\n")
    if option.parents:
        links = ", ".join(f"[{option.group}={name}]({anchor(f'{option.group}={name}')})" for name in option.parents)
        parts.append(f"Its other keys are those of {links}.\n")
    if option.chosen:
        parts.append(f"It also chooses {', '.join(f'`{group}={name}`' for group, name in option.chosen.items())}.\n")
    if option.settings:
        parts.append(_keys(option.settings))
    return "\n".join(parts)


def _about(option: Option) -> str:
    """The comment at the top of the file, as it is written where its lines are a table."""
    if option.whole and option.group == "experiment":
        return "```text\n" + "\n".join(option.about) + "\n```\n"
    return escaped(" ".join(option.about)) + "\n"


def _keys(settings: list[Setting]) -> str:
    return "\n".join(_line(one.key, one.default, one.meaning) for one in settings) + "\n"


def _line(key: str, default: str, meaning: str) -> str:
    """A key as it is typed with its default, and what it is."""
    if default.startswith(CALLS):
        return f"- `{key}` calls `{default.removeprefix(CALLS)}`" + (f": {escaped(meaning)}" if meaning else "")
    return f"- `{key}{f'={default}' if default else ''}`: {escaped(meaning)}"


def _plugin(title: str, settings: type) -> str:
    """The settings of a launcher or a sweeper, from its dataclass and the docstring of it."""
    node = title.partition("=")[0].replace("/", ".")
    meanings = docstrings.fields(parsed(settings).text)
    rows = [
        _line(f"{node}.{one.name}", _plain(one), meanings[one.name])
        for one in fields(settings)
        if not one.name.startswith("_")
    ]
    return "\n".join([f"### {title}\n", *rows]) + "\n"


def _plain(field: Any) -> str:
    """The default of a field, as YAML writes it."""
    value = field.default if field.default is not MISSING else field.default_factory()
    return value if isinstance(value, str) else json.dumps(value)
