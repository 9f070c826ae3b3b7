"""The site is built without a warning, needs nothing from outside, and its pictures and links are there."""

import re
import subprocess
import sys
from html import unescape
from urllib.parse import unquote

import pytest

from tests.pages import DOCS

ROOT = DOCS.parent


@pytest.mark.slow
@pytest.mark.sample(0)
def test_it_is_built_and_whole(tmp_path):
    pytest.importorskip("sphinx", reason="the extra docs is not installed, so that the site is not built")
    site = tmp_path / "site"
    options = ["--quiet", "--fail-on-warning", "--keep-going", "-c", "docs"]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ".", site], cwd=ROOT, capture_output=True, text=True
    )
    assert (built.returncode, built.stderr) == (0, "")
    pages = list(site.rglob("*.html"))
    assert len(pages) > 100
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r'<(?:script|img|source|link rel="stylesheet")[^>]*(?:src|href)="([^"]*)"', text)
        linked = re.findall(r'<a [^>]*href="([^"#]*)', text)
        assert not [one for one in loaded if one.startswith(("http", "//"))], page
        for target in {*loaded, *linked}:
            place = unquote(unescape(target)).partition("?")[0].partition("#")[0]
            if place and not re.match(r"\w+:", place):
                assert (page.parent / place).exists(), f"{page.relative_to(site)}: {target}"


def test_each_page_is_in_the_menu_once():
    from docs.conf import SECTIONS

    named = [page for pages in SECTIONS.values() for page in pages]
    assert len(named) == len(set(named))
    assert {f"docs/{path.stem}" for path in DOCS.glob("*.md")} <= set(named)
