"""The site: README, docs/ and the examples as they lie here, in the order of SECTIONS; `make docs` builds it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    "Start": ["docs/notebook", "docs/first_checks", "docs/examples", "docs/python", "docs/comparison"],
    "Your own work": [
        "docs/own_work",
        "docs/own_data",
        "docs/data",
        "docs/steps",
        "docs/lightning",
        "docs/callbacks",
        "docs/fine_tuning",
        "docs/own_optimizer",
    ],
    "Learning rates": ["docs/schedules", "docs/gallery", "docs/optimizers"],
    "Batch size": ["docs/scaling", "docs/noise_scale"],
    "Finding the rate": ["docs/tune", "docs/range_test", "docs/doctor"],
    "Several GPUs and machines": ["docs/processes", "docs/scale"],
    "Resume and faults": ["docs/runs", "docs/guard"],
    "Sweeps": ["docs/search", "docs/report", "docs/listing", "docs/loggers"],
    "Reference": ["docs/reference", "docs/api", "CHANGELOG"],
    "How it is built": [
        "docs/house",
        "CONTRIBUTING",
        "docs/adr/README",
        "docs/log",
        "docs/benchmarks",
        "docs/experiments",
    ],
}
"""The pages of the menu; a page that is in none of these lists, nor in CONTENTS, fails the build."""
CONTENTS = {"docs/adr/README": "/docs/adr/0*", "docs/examples": "/examples/*/README"}
"""Pages that end with a list of others."""

project = html_title = "Cadence"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
root_doc = "README"
include_patterns = ["*.md", "docs/**", "examples/*/README.md"]
exclude_patterns = [".*", "outputs", "site", "build", "dist", "docs/experiments/introduction.md"]
myst_heading_anchors = 4
highlight_language = "text"
html_theme = "furo"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False


def setup(app: Any) -> None:
    """Make pages of what GitHub shows in another way."""
    app.connect("source-read", lambda _, page, source: source.__setitem__(0, markdown(page, source[0])))
    app.connect("build-finished", lambda app, _: finished(Path(app.outdir)))


def markdown(page: str, text: str) -> str:
    """The source of a page: a notebook as Markdown, links to folders as links to their README, and the menus."""
    text = from_notebook(text) if page == "docs/notebook" else text
    text = re.sub(r"\]\((?![a-z]+:)([^)#\s]+)\)", lambda found: f"]({_page(ROOT / page, found[1])})", text)
    if page == root_doc:
        for caption, pages in SECTIONS.items():
            text += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(f"/{one}" for one in pages)
            text += "\n```\n"
    if page in CONTENTS:
        text += f"\n\n```{{toctree}}\n:glob:\n:maxdepth: 1\n\n{CONTENTS[page]}\n```\n"
    return text


def from_notebook(text: str) -> str:
    """The cells of a notebook and their outputs."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![](data:image/png;base64,{data['image/png'].strip()})")
            else:
                parts.append(f"```text\n{''.join(output.get('text', data.get('text/plain', '')))}\n```")
    return "\n\n".join(parts)


def finished(site: Path) -> None:
    """Copy the pictures that HTML in a page names, and lead the address of the site to its first page."""
    shutil.copytree(ROOT / "docs" / "gallery", site / "docs" / "gallery", dirs_exist_ok=True)
    (site / "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n')


def _page(page: Path, target: str) -> str:
    """What a link leads to: for a folder its README."""
    place = page.parent / target
    return f"{target.rstrip('/')}/README.md" if place.is_dir() and (place / "README.md").is_file() else target
