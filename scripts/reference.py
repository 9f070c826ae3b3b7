"""Runs `trainer.tools.reference.command` from a checkout; see `python scripts/reference.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.tools.reference.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_cli(main))
