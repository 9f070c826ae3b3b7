"""Draw the gallery: a page with every schedule, warm-up and cooldown as a small picture beside its YAML.

Writes OUT/gallery.md and OUT/gallery/*.svg, the same bytes each time. Run it when an option of conf/ has changed:

    python scripts/gallery.py
    python scripts/gallery.py --out /tmp/gallery         # somewhere else, to look at first
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.cli.compose import CONF
from trainer.lr import ConfigError
from trainer.tools.gallery.exhibit import exhibits
from trainer.tools.gallery.page import page
from trainer.tools.gallery.picture import picture

DOCS = CONF.parent / "docs"


def main(arguments: list[str] | None = None) -> None:
    """Draw everything and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS, metavar="FOLDER", help="where to write: docs")
    out = parser.parse_args(arguments).out
    with writing(out):
        (out / "gallery").mkdir(parents=True, exist_ok=True)
    shown = exhibits()
    with writing(out):
        for one in shown:
            (out / "gallery" / f"{one.stem}.svg").write_bytes(picture(one.plan, one.floor))
        (out / "gallery.md").write_text(page(shown), encoding="utf-8")
    print(f"{out / 'gallery.md'}: {len(shown)} pictures")


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raise a ConfigError where the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"--out={out} cannot be written ({error.strerror}): name another folder.") from error
