"""Run all measurements, each beside its peer, and show one table.

    python benchmarks/bench.py --folder outputs/bench
    python benchmarks/bench.py --only data growth

Takes five to ten minutes on two cores; `--full` measures more rounds. Each measurement is a program of its own,
and its numbers go to a JSON file in the folder. `table.md` is the table for docs/benchmarks.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.compared import markdown, show_lines  # noqa: E402

BENCHMARK = "benchmark.py"
QUICK: dict[str, list[str]] = {
    "updates": [BENCHMARK, "updates", "--rounds", "5", "--variants", "bare", "cadence", "unlogged", "lightning"],
    "lr": [BENCHMARK, "lr", "--rounds", "3"],
    "data": [BENCHMARK, "data", "--rounds", "5"],
    "checkpoint": ["checkpoint.py", "--rounds", "3"],
    "start": ["startup.py", "--rounds", "7"],
    "ddp": [BENCHMARK, "ddp", "--block", "5", "--updates", "60"],
    "fsdp": [BENCHMARK, "fsdp", "--block", "5", "--updates", "100"],
    "processes": [BENCHMARK, "processes", "--rounds", "1", "--updates", "10"],
    "compile": [BENCHMARK, "compile", "--rounds", "4", "--updates", "10"],
    "growth": [BENCHMARK, "growth", "--rounds", "2"],
}
"""The command of each measurement, of a few rounds."""
FULL: dict[str, list[str]] = {
    **QUICK,
    "updates": [BENCHMARK, "updates", "--rounds", "15"],
    "lr": [BENCHMARK, "lr", "--rounds", "9"],
    "data": [BENCHMARK, "data", "--rounds", "15"],
    "checkpoint": ["checkpoint.py", "--rounds", "9"],
    "start": ["startup.py", "--rounds", "9"],
    "ddp": [BENCHMARK, "ddp", "--block", "10", "--updates", "300"],
    "fsdp": [BENCHMARK, "fsdp", "--block", "10", "--updates", "400"],
    "processes": [BENCHMARK, "processes", "--rounds", "3"],
    "compile": [BENCHMARK, "compile", "--rounds", "12", "--updates", "10"],
    "growth": [BENCHMARK, "growth", "--rounds", "7"],
}


def main() -> int:
    """Run what is asked for; 1 where a measurement failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=QUICK, default=list(QUICK), help="some of the measurements")
    parser.add_argument("--full", action="store_true", help="more rounds: about 40 minutes")
    parser.add_argument("--folder", type=Path, default=Path("outputs/bench"), help="where the numbers go")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    commands, begun, lines, failed = FULL if options.full else QUICK, time.monotonic(), [], []
    for place, name in enumerate(options.only):
        minutes = (time.monotonic() - begun) / 60
        print(f"{place + 1} of {len(options.only)}: {name}, after {minutes:.1f} minutes", flush=True)
        report = run(commands[name], options.folder / f"{name}.json")
        if report is None:
            failed.append(name)
        else:
            lines += report.get("lines", [])
    minutes = (time.monotonic() - begun) / 60
    show_lines(lines, f"{minutes:.1f} minutes in all.")
    (options.folder / "table.md").write_text(markdown(lines), encoding="utf-8")
    print(options.folder / "table.md")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def run(command: list[str], out: Path) -> dict[str, Any] | None:
    """The report of a measurement; None where it failed."""
    program, *words = command
    words = [sys.executable, str(ROOT / "benchmarks" / program), *words, "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if subprocess.run(words, env=environment, check=False).returncode:
        return None
    return json.loads(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
