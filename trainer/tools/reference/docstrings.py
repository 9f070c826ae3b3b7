"""A docstring as Markdown, and the line that it has for an argument."""

import importlib
import inspect
import re
from typing import Any, NamedTuple

OWN = ("cadence", "trainer", "data", "models", "hydra_plugins")
"""The packages whose docstrings are shown; what a config calls elsewhere has its own documentation."""
SECTIONS = ("Args", "Returns", "Raises")
_TITLE = re.compile(rf"^({'|'.join(SECTIONS)}):$", re.MULTILINE)


class Docstring(NamedTuple):
    """The text before the sections, and the entries of each section by name."""

    text: str
    sections: dict[str, dict[str, str]]


def named(target: str) -> Any:
    """The class or function that a config names, imported; None where it is not one of ours."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name) if module.split(".")[0] in OWN else None


def parsed(documented: Any) -> Docstring:
    """The docstring of a class or function in its parts."""
    text, *rest = _TITLE.split(inspect.getdoc(documented) or "")
    sections: dict[str, dict[str, str]] = {}
    for title, body in zip(rest[::2], rest[1::2]):
        entries, after = _entries(body)
        sections[title] = entries
        text = f"{text.rstrip()}\n\n{after}"
    return Docstring(text.strip(), sections)


def argument(documented: Any, name: str) -> str:
    """What the docstring of a function, a class or its constructor says of an argument."""
    places = [documented, documented.__init__] if inspect.isclass(documented) else [documented]
    return next((found for place in places if (found := parsed(place).sections.get("Args", {}).get(name))), "")


def summary(target: str) -> str:
    """The first paragraph of the docstring of what is called; empty for another package."""
    found = named(target)
    return "" if found is None else " ".join(parsed(found).text.partition("\n\n")[0].split())


def fields(text: str) -> dict[str, str]:
    """The entries of a text of the form "`name`: what it is. `other`, `another`: what they are."."""
    parts = re.split(r"((?:`\w+`(?:, )?)+): ", " ".join(text.split()))
    entries: dict[str, str] = {}
    for names, meaning in zip(parts[1::2], parts[2::2]):
        for name in re.findall(r"`(\w+)`", names):
            entries[name] = meaning.rstrip(". ")
    return entries


def escaped(text: str) -> str:
    """A text as Markdown: words such as _target_ as code, and `*` and `<` escaped, except for what is in backticks."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"\S+", _word, part) for part in parts)


def _word(found: re.Match[str]) -> str:
    word = found[0]
    name = word.strip("(),.:;{}")
    if re.search(r"(?<![^\W_])_\w+_(?![^\W_])", name):
        return word.replace(name, f"`{name}`")
    return re.sub(r"([*<])", r"\\\1", word)


def _entries(body: str) -> tuple[dict[str, str], str]:
    """The entries of a section, which are indented, and the text that follows the section."""
    entries: dict[str, str] = {}
    lines, name = body.strip("\n").split("\n"), ""
    for i, line in enumerate(lines):
        if line and not line.startswith(" "):
            return entries, "\n".join(lines[i:])
        if match := re.match(r"^ {4}(\w+): (.*)$", line):
            name, entries[match[1]] = match[1], match[2]
        elif name and line.strip():
            entries[name] += " " + line.strip()
    return entries, ""
