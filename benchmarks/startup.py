"""The time that a command takes to start: medians of fresh processes, interleaved. Example:

python benchmarks/startup.py --rounds 9
python benchmarks/startup.py --rounds 4 --sweeps 40 500    # until the first of so many jobs has its log

The times of the clock and of the processor, as ratios to `import hydra` of the same round. The first update of
`cadence train` is compared with that of a bare script with Hydra, the same net, data and optimizer.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.compared import Line, keep, line, show_lines  # noqa: E402
from benchmarks.report import machine  # noqa: E402

TRAIN, PLAN = str(ROOT / "train.py"), str(ROOT / "scripts/plan.py")
FIRST = ("+callbacks.first._target_=benchmarks.bare_start.ExitAtFirstUpdate", "allow=[benchmarks]")
ALONE = ("trainer.accelerator=cpu", "trainer.threads=1", "trainer.steps_per_execution=1")
HYDRA, BARE = "import hydra", "first update, bare script"
COMMANDS = {
    HYDRA: ["-c", "import hydra"],
    "train.py --cfg job": [TRAIN, "--cfg", "job"],
    "train.py --help": [TRAIN, "--help"],
    "refused: a key": [TRAIN, "optimizer.lrr=1"],
    "refused: a value": [TRAIN, "optimizer.lr=abc"],
    "scripts/plan.py --no-files": [PLAN, "optimizer=sgd", "schedule=cosine_warmup", "--no-files"],
    "scripts/plan.py": [PLAN, "optimizer=sgd", "schedule=cosine_warmup"],
    BARE: [str(ROOT / "benchmarks/bare_start.py")],
    "first update, train.py": [TRAIN, *ALONE, *FIRST],
}
BASES = {"first update, train.py": BARE}
"""What a command is compared with, where it is not `import hydra`."""
TARGETS = {
    "train.py --cfg job": "<= 2",
    "train.py --help": "<= 4",
    "scripts/plan.py --no-files": "<= 4",
    "scripts/plan.py": "<= 4",
    "first update, train.py": "<= 1.25",
}
REFUSED = 2


def main() -> None:
    """Print, for each command, the medians of both times, their spread, and their ratios to its base."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="processes per command, at least 1")
    parser.add_argument("--sweeps", type=int, nargs="+", metavar="JOBS", help="measure sweeps of so many jobs alone")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    rounds = options.rounds
    if rounds < 1:
        parser.error(f"--rounds={rounds} measures nothing: give at least 1")
    if options.sweeps:
        show_sweeps(options.sweeps, rounds)
        return
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for name, words in COMMANDS.items():
                one = measure(words, folder)
                if number:  # the first round warms the file cache and compiles
                    spent[name].append(one)
            print(f"\rround {number} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    for name, times in spent.items():
        base = spent[BASES.get(name, HYDRA)]
        print(f"{name:27}", *(column(times, base, which) for which in (0, 1)), sep="  ")
    lines = [compared(name, target, spent) for name, target in TARGETS.items()]
    show_lines(lines, "Seconds of the processor.")
    keep(options.out, {"lines": lines, "machine": machine(1), "rounds": spent})


def show_sweeps(sizes: Sequence[int], rounds: int) -> None:
    """Print the time until the first job of a sweep has its log, interleaved, the first round left out."""
    times = [[first_job(jobs) for jobs in sizes] for _ in range(rounds + 1)][1:]
    for jobs, row in zip(sizes, zip(*times)):
        clock, used = (f"{statistics.median(one):.2f} s ({min(one):.2f} to {max(one):.2f})" for one in zip(*row))
        print(f"the first of {jobs} jobs: clock {clock}, processor of the driver {used}")


def first_job(jobs: int) -> tuple[float, float]:
    """Seconds of the clock, and of the driver's processor, until the first job of a sweep has its log; then it ends."""
    words = [TRAIN, "-m", f"seed=range({jobs})", "name=first", "trainer.duration=40", "trainer.accelerator=cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        driver = subprocess.Popen([sys.executable, *words], cwd=folder, env=environment, **quiet)
        while not any(Path(folder).glob("outputs/first/*/job.log")):
            if driver.poll() is not None:
                raise SystemExit(f"{words} left with {driver.returncode} before its first job")
            time.sleep(0.005)
        seconds = time.perf_counter() - begun
        user, system = Path(f"/proc/{driver.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        driver.terminate()
        driver.wait()
    return seconds, (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def compared(name: str, target: str, spent: dict[str, list[tuple[float, float]]]) -> Line:
    """The processor's time of a command beside that of its base."""
    base = BASES.get(name, HYDRA)
    return line(f"start: {name}", [one[1] for one in spent[name]], base, [one[1] for one in spent[base]], target)


def column(times: Sequence[tuple[float, float]], base: Sequence[tuple[float, float]], which: int) -> str:
    """The median, the spread and the median ratio within a round, of the clock (0) or the processor (1)."""
    own = [one[which] for one in times]
    ratio = statistics.median(one[which] / other[which] for one, other in zip(times, base, strict=True))
    label = ("clock", "processor")[which]
    return f"{label} {statistics.median(own):6.2f} s ({min(own):.2f} to {max(own):.2f})  x {ratio:5.2f}"


def measure(words: Sequence[str], folder: str) -> tuple[float, float]:
    """Seconds of the clock and of the processor that a fresh interpreter takes with these arguments."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment.update(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    before, begun = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, env=environment)
    seconds, after = time.perf_counter() - begun, os.times()
    if done.returncode not in (0, REFUSED) or (done.returncode == REFUSED) != (
        "=abc" in words[-1] or "lrr" in words[-1]
    ):
        raise SystemExit(f"{words} left with {done.returncode}: {done.stderr[-500:]}")
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return seconds, used


if __name__ == "__main__":
    main()
