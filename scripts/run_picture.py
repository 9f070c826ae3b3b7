"""Draw what a run shows on a terminal as an SVG, from a real run: docs/run.svg, the picture of the README. Example:

python scripts/run_picture.py optimizer=adamw schedule=cosine_warmup trainer.validate=5ep
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "run.svg"
WIDTH = 92
FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Without rich's fonts, which come from another site."""


def main() -> None:
    """Train in an empty folder, and draw what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the run")
    words = ["cadence", "train", *parser.parse_args().overrides]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", *words, "name=first"]
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        lines = shown(done.stdout.replace(f"{folder}/", ""))
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join([f"\x1b[1;32m$\x1b[0m {' '.join(words)}", *lines])))
    svg = console.export_svg(title="", theme=MONOKAI, code_format=FORMAT, unique_id="run")
    PICTURE.write_text(svg, encoding="utf-8")
    print(PICTURE)


def shown(output: str) -> list[str]:
    """The lines that stay: of a bar, which is printed anew each time, only the last."""
    lines = [line.rpartition("\r\x1b[2K")[2].rstrip() for line in output.split("\n")]
    bars = [i for i, line in enumerate(lines) if "━" in line]
    dropped = {*bars} - {*[i for i in bars if "train" in lines[i]][-1:]}
    return [line for i, line in enumerate(lines) if i not in dropped]


if __name__ == "__main__":
    main()
