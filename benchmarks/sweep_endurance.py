"""Kill the driver of a sweep at random moments while its jobs fail in six ways; count lost and doubled jobs.

    python benchmarks/sweep_endurance.py                   24 jobs, 50 kills
    python benchmarks/sweep_endurance.py --search          # the same for a search of 24 trials

Each job fails at its first start and completes at its second, unless it is killed. The driver, launcher, watchdog,
device pool and records are the real ones; a job is a stand-in that starts at once.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.stand_in import driver, toy  # noqa: E402
from trainer.distributed.launch.folder_lock import FolderLock  # noqa: E402

DEATHS = ("raise", "code", "kill", "term", "hang", "leave")
GRID = (f"act={','.join(DEATHS)}", "x=linspace(1,4,4)", "hydra.launcher.jobs=6")
SEARCH = ("hydra/sweeper=search", "x=interval(1,4)", "hydra.sweeper.trials=24", "hydra.sweeper.startup=3")


@dataclass(frozen=True)
class Figures:
    """The outcome of a sweep whose driver was killed `kills` times and started `starts` times."""

    jobs: int
    kills: int
    starts: int
    completed: int
    lost: int
    doubled: int
    died: dict[str, int]
    seconds: float


def endure(app: Path, words: tuple[str, ...], kills: int, seed: int, longest: float = 3.0) -> Figures:
    """Kill the driver up to `kills` times, each at a random moment, then let it run until the sweep is complete."""
    draw, begun, starts, killed = random.Random(seed), time.monotonic(), 0, 0
    died: Counter[str] = Counter()
    while True:
        starts += 1
        process = driver(app, *words, "hydra.launcher.timeout=2")
        if killed < kills:
            try:
                process.wait(draw.uniform(0.2, longest))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                _wait_until_free(app)
                continue
        code = process.wait()
        died.update(" ".join(job["error"].split()[:3]) for job in _jobs(app) if job["status"] == "failed")
        if code == 0 or starts > kills + 10:
            break
    seconds = round(time.monotonic() - begun, 1)
    folders = [Path(job["folder"]) for job in _jobs(app)]
    ends = [len(_lines_of(folder / "completions")) for folder in folders]
    recorded = [
        job for job in _jobs(app) if job["status"] == "completed" and (Path(job["folder"]) / "result.json").exists()
    ]
    return Figures(
        len(folders),
        killed,
        starts,
        len(recorded),
        lost=sum(end == 0 for end in ends) + len(folders) - len(recorded),
        doubled=sum(end > 1 for end in ends),
        died=dict(died),
        seconds=seconds,
    )


def _wait_until_free(app: Path) -> None:
    """Wait until the jobs of a killed driver have been ended."""
    folder = app / "outputs" / "s"
    while folder.exists():
        with FolderLock(folder) as lock:
            if lock.acquired():
                return
        time.sleep(0.05)


def _jobs(app: Path) -> list[dict[str, str]]:
    path = app / "outputs" / "s" / "sweep.json"
    jobs: list[dict[str, str]] = json.loads(path.read_text())["jobs"] if path.exists() else []
    return jobs


def _lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Print the figures; if a job is lost or doubled, also the output of the drivers, and exit with code 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=3.0, help="seconds that a driver lives at most")
    parser.add_argument("--search", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app = toy(Path(folder) / "app")
        figures = endure(app, SEARCH if given.search else GRID, given.kills, given.seed, given.longest)
        print(json.dumps(figures.__dict__, indent=2))
        if figures.lost or figures.doubled:
            sys.exit((app / "driver.log").read_text())


if __name__ == "__main__":
    main()
