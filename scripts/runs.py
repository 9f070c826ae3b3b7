"""The command `cadence runs` from a checkout; see `python scripts/runs.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cadence.__main__ import run  # noqa: E402

if __name__ == "__main__":
    sys.exit(run("runs", sys.argv[1:]))
