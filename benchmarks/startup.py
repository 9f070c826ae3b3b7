"""The time that a command takes to start: medians of fresh processes, interleaved. Example:

python benchmarks/startup.py --rounds 9
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = {
    "import hydra": ["-c", "import hydra"],
    "train.py --cfg job": [str(ROOT / "train.py"), "--cfg", "job"],
    "train.py --help": [str(ROOT / "train.py"), "--help"],
    "scripts/plan.py": [str(ROOT / "scripts/plan.py"), "optimizer=sgd", "schedule=cosine_warmup"],
}


def main() -> None:
    """Print, for each command, its median, its spread, and its ratio to `import hydra`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="processes per command, at least 1")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error(f"--rounds={rounds} measures nothing: give at least 1")
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for name, words in COMMANDS.items():
                spent = measure(words, folder)
                if number:  # the first round warms the file cache
                    seconds[name].append(spent)
            print(f"\rround {number} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    base = statistics.median(seconds["import hydra"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(
            f"{name:20}  {middle:6.3f} s  ({min(times):.3f} to {max(times):.3f})  {middle / base:5.2f} x import hydra"
        )


def measure(words: list[str], folder: str) -> float:
    """Seconds of a fresh interpreter with these arguments."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
