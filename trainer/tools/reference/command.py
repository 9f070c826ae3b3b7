"""Write the reference of every config key and the page of the functions for users.

Writes OUT/reference.md and OUT/api.md, the same bytes each time. Run it when conf/ or a docstring has changed:

    python scripts/reference.py
    python scripts/reference.py --out /tmp/pages         # somewhere else, to look at first
"""

import argparse
import importlib
from pathlib import Path

from trainer.cli.compose import CONF
from trainer.tools.gallery.command import DOCS, writing
from trainer.tools.reference import api_page, settings_page
from trainer.tools.reference.meanings import with_meanings
from trainer.tools.reference.options import options

PLUGINS = {
    "hydra/launcher=process": "hydra_plugins.process_launcher.ProcessLauncherConf",
    "hydra/launcher=in_process": "hydra_plugins.in_process_launcher.InProcessLauncherConf",
    "hydra/launcher=submitit_slurm": "hydra_plugins.slurm_launcher.SlurmLauncherConf",
    "hydra/launcher=ray": "hydra_plugins.ray_launcher.RayLauncherConf",
    "hydra/sweeper=grid": "hydra_plugins.grid_sweeper.GridSweeperConf",
    "hydra/sweeper=search": "hydra_plugins.search_sweeper.SearchSweeperConf",
}


def pages() -> dict[str, str]:
    """The pages by the names of their files."""
    plugins = {}
    for title, target in PLUGINS.items():
        module, _, name = target.rpartition(".")
        plugins[title] = getattr(importlib.import_module(module), name)
    settings = settings_page.page(with_meanings(options(CONF)), plugins)
    return {"reference.md": settings, "api.md": api_page.page()}


def main(arguments: list[str] | None = None) -> None:
    """Write both pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS, metavar="FOLDER", help="where to write: docs")
    out = parser.parse_args(arguments).out
    for name, text in pages().items():
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, encoding="utf-8")
        print(f"{out / name}: {len(text.splitlines())} lines")
