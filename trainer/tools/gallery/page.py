"""The gallery as a page that GitHub shows: a table of contents, then each picture with its YAML beside it."""

import re
import shlex
from itertools import groupby

from trainer.tools.gallery.examples import FILES
from trainer.tools.gallery.exhibit import UPDATES, Exhibit
from trainer.tools.gallery.picture import WIDTH

COLUMN, LINE = 26, 62
HEAD = f"""# Gallery

Every schedule, warm-up and cooldown, what they make together, and the other hyper-parameters that change with them
(orange). Each picture is a run of {UPDATES} updates; upwards is the learning rate as a share of its peak. The band is
the warm-up, dotted lines are the peak and, where one is set, the floor.

The line below a picture is what makes it, and beside it are all settings of the option, with their defaults. Put the
line behind `cadence train` to train with it, or look at it first:

    cadence plan schedule=cosine schedule.floor=0.1 --updates {UPDATES}

Made by `python scripts/gallery.py` from conf/ and trainer/lr; do not edit it by hand.
"""


def page(exhibits: list[Exhibit]) -> str:
    """The whole page, in Markdown."""
    families = [(family, list(members)) for family, members in groupby(exhibits, lambda one: one.family)]
    parts = [HEAD, "## Contents\n", "\n".join(_contents(family, members) for family, members in families) + "\n"]
    for family, members in families:
        parts += [f"## {family}\n", *map(_shown, members)]
    return "\n".join(parts)


def anchor(title: str) -> str:
    """What GitHub calls the heading `title` in a link."""
    return "#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def wrapped(yaml: str) -> str:
    """A file of conf/ with its comments in one column and its lines short, so that it fits beside a picture."""
    lines = []
    for line in yaml.rstrip("\n").split("\n"):
        setting, mark, comment = line.partition("#")
        if not mark or len(line) <= LINE:
            lines.append(line)
            continue
        if len(setting.rstrip()) >= COLUMN:
            lines.append(setting.rstrip())
            setting = ""
        for words in _fitted(comment.split(), LINE - COLUMN - 2):
            lines.append(f"{setting.rstrip():{COLUMN}}# {words}")
            setting = ""
    return "\n".join(lines)


def _contents(family: str, members: list[Exhibit]) -> str:
    links = (f"[{one.title.partition('=')[2] or one.title}]({anchor(one.title)})" for one in members)
    return f"- [{family}]({anchor(family)}): {' · '.join(links)}"


def _shown(one: Exhibit) -> str:
    """The heading, what it is, the picture and the YAML side by side, and the command."""
    note = [one.note, _plain(one.formula)] if one.formula else [one.note]
    command = " ".join(map(shlex.quote, one.words))
    parts = [
        f"### {one.title}\n",
        "\n\n".join(note) + "\n",
        f'<table><tr><td><img src="gallery/{one.stem}.svg" width="{WIDTH}" alt="{one.title}"></td><td>\n',
        f"```yaml\n{wrapped(one.yaml)}\n```\n",
        "</td></tr></table>\n",
        f"```\n{command}\n```\n",
    ]
    if one.reads:
        kind = "python" if one.reads.endswith(".py") else ""
        parts.append(f"with `{one.reads}`:\n\n```{kind}\n{FILES[one.reads]}```\n")
    return "\n".join(parts)


def _plain(formula: str) -> str:
    """A line of a docstring with the characters escaped that Markdown would read as markup."""
    return re.sub(r"([*<])", r"\\\1", formula)


def _fitted(words: list[str], width: int) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines
