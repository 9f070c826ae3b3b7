"""What the test of a page in docs/ needs: the page's code, and the words of its command."""

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


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
