"""A door to `trainer.tools.range_test.command`; see `python scripts/range_test.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trainer.cli.run_cli import run_cli  # noqa: E402
from trainer.tools.range_test.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_cli(main))
