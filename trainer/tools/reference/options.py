"""The options of conf/ as they are written: each key with its default and the comment beside it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

GLOBAL = "# @package _global_"
CALLS = "calls "
"""What the default of a node begins with; the name of what is called follows."""


class Setting(NamedTuple):
    """A key in full, as data.batch_size; its default as in the file; what it is; what the node around it calls."""

    key: str
    default: str
    meaning: str
    target: str


class Option(NamedTuple):
    """A file of conf/.

    `about` are the comment lines at its top. `parents` are options of the same group whose keys it has too, and
    `chosen` the options of other groups that it chooses, by group. `whole` says that its keys are those of the run and
    not of its group.
    """

    group: str
    name: str
    about: list[str]
    target: str
    parents: list[str]
    chosen: dict[str, str]
    whole: bool
    settings: list[Setting]


def option(path: Path, group: str) -> Option:
    """The option in a file."""
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    whole = not group or GLOBAL in lines
    node: Any = yaml.compose(text, yaml.SafeLoader)
    pairs = {key.value: value for key, value in node.value}
    parents, chosen = _defaults(yaml.safe_load(text).get("defaults") or [])
    return Option(
        group=group,
        name=path.stem,
        about=_about(lines),
        target=pairs["_target_"].value if "_target_" in pairs else "",
        parents=parents,
        chosen=chosen,
        whole=whole,
        settings=list(_settings(_without_defaults(node), "" if whole else f"{group}.", text, lines)),
    )


def options(conf: Path) -> dict[str, list[Option]]:
    """The options of every group, by its name; train.yaml is the only option of the group "".

    The folder `hydra` holds the text of --help, and is no group.
    """
    groups = sorted(path.name for path in conf.iterdir() if path.is_dir() and path.name not in ("hydra", "__pycache__"))
    found = {"": [option(conf / "train.yaml", "")]}
    for group in groups:
        found[group] = [option(path, group) for path in sorted((conf / group).glob("*.yaml"))]
    return found


def _defaults(entries: list[Any]) -> tuple[list[str], dict[str, str]]:
    """The options of the same group, and those of other groups by group."""
    parents, chosen = [], {}
    for entry in entries:
        if isinstance(entry, dict):
            ((group, name),) = entry.items()
            group = group.removeprefix("override ").lstrip("/").partition("@")[0]
            chosen[group] = "null" if name is None else str(name)
        elif entry != "_self_":
            parents.append(entry)
    return parents, chosen


def _about(lines: list[str]) -> list[str]:
    """The comment lines at the top of a file."""
    found: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            return found
        if line != GLOBAL:
            found.append(line[2:])
    return found


def _without_defaults(node: Any) -> Any:
    """The mapping of a file without its list of defaults."""
    node.value = [(key, value) for key, value in node.value if key.value != "defaults"]
    return node


def _settings(node: Any, prefix: str, text: str, lines: list[str]) -> Iterator[Setting]:
    """The keys of a mapping and of the mappings in it, in the order of the file."""
    pairs = {key.value: value for key, value in node.value}
    target = pairs["_target_"].value if "_target_" in pairs else ""
    for key, value in node.value:
        if key.value.startswith("_"):
            continue
        name = f"{prefix}{key.value}"
        block = isinstance(value, yaml.MappingNode) and not value.flow_style
        same_line = value.end_mark.line == key.start_mark.line
        column = value.end_mark.column if same_line else key.end_mark.column
        comment = lines[key.start_mark.line][column:].partition("#")[2].strip()
        if not block:
            yield Setting(name, _written(value, text), comment, target)
            continue
        called = next((inner.value for own, inner in value.value if own.value == "_target_"), "")
        if called or comment:
            yield Setting(name, called and f"{CALLS}{called}", comment, target)
        yield from _settings(value, f"{name}.", text, lines)


def _written(value: Any, text: str) -> str:
    """A value as the file has it, in one line."""
    written = text[value.start_mark.index : value.end_mark.index].strip()
    if "\n" not in written:
        return written
    items = [re.sub(r"\s+#.*$", "", line).strip().removeprefix("- ") for line in written.split("\n")]
    return f"[{', '.join(items)}]"
