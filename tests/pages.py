"""What the tests of pages need: their code, the words of their commands, and which commands there are."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent.parent / "docs"
PROGRAMS = (
    *("cadence", "python", "torchrun", "sbatch", "make", "pip", "tensorboard", "export", "wandb", "source"),
    ".venv/bin/pre-commit",
)
"""The first words of what a page tells a person to type."""


class Command(NamedTuple):
    """A command of a page: the page from the root of the project, the line on it, and the words."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.words)


def block(page, language):
    """The only block of code of a page in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return found


def section(page, title):
    """The text of a section of a page."""
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return found


def overrides_of(page, file, folder, monkeypatch):
    """The overrides of the page's command, with the page's code as `file` in a folder where Python finds it."""
    (folder / file).write_text(block(page, "python"))
    monkeypatch.syspath_prepend(folder)
    words = shlex.split(block(page, "bash").replace("\\\n", ""))
    assert words[:2] == ["cadence", "train"]
    return words[2:]


def shell_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """The lines of the blocks in which commands stand: the number of each, the language, and the line.

    A block has the language bash or sh or none, or it is indented. Lines that end with a backslash are joined.
    """
    language, begun = None, ""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("```"):
            language = (line[3:].strip() or "none") if language is None else None
            continue
        indented = language is None and line.startswith("    ")
        if not line.strip() or not (indented or language in ("bash", "sh", "none")):
            continue
        begun += line.strip()
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        yield number, language or "indented", begun
        begun = ""


def commands_of(page: Path) -> Iterator[Command]:
    """The commands of a page. What else is in a block without a language, such as an output, is left out."""
    name = str(page.relative_to(DOCS.parent))
    for number, language, line in shell_lines(page.read_text()):
        if line.split()[0] in PROGRAMS:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";")
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word != ";":
                    words.append(word)
                elif words:
                    yield Command(name, number, tuple(words))
                    words = []
        elif language in ("bash", "sh"):
            raise AssertionError(f"{name}:{number}: {line} does not begin with a program that tests know")
