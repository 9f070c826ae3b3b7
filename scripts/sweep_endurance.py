"""Kill the driver of a sweep at random moments, again and again, while its jobs die in six ways; count what is left.

    python scripts/sweep_endurance.py                   24 jobs, 50 kills
    python scripts/sweep_endurance.py --search          the same for a search of 24 trials

Each of the jobs dies when it is first started and completes when it is started again, as long as nobody kills it. The
driver, its launcher, guardian, pool and records are the real ones; a job is a stand-in that starts within a moment.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """
import json, os, signal, sys, time

def job(words):
    given = dict(word.lstrip("+").split("=", 1) for word in words if "=" in word)
    folder = given["hydra.run.dir"].strip("'")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "starts"), "a") as file:
        file.write(f"{os.getpid()}\\n")
    starts = len(open(os.path.join(folder, "starts")).readlines())
    time.sleep(float(given.get("sleep", 0)))
    if starts == 1 and given.get("act", "complete") != "complete":
        {
            "raise": lambda: 1 / 0,
            "code": lambda: os._exit(3),
            "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
            "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
            "hang": lambda: time.sleep(600),
            "leave": lambda: sys.exit(0),
        }[given["act"]]()
        time.sleep(600)
    for step in range(int(given.get("validations", 0))):
        with open(os.path.join(folder, "validations.jsonl"), "a") as file:
            file.write(json.dumps({"update": step + 1, "val/loss": float(given.get("x", 0))}) + "\\n")
        time.sleep(0.3)
    path = os.path.join(folder, "result.json")
    with open(path + ".draft", "w") as file:
        json.dump({"status": "completed", "metrics": {"val/loss": float(given.get("x", 0))}, "pid": os.getpid()}, file)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # what is counted and what is done are one
    with open(os.path.join(folder, "completions"), "a") as file:
        file.write(f"{os.getpid()}\\n")
    os.replace(path + ".draft", path)

if "hydra.mode=RUN" in sys.argv:
    job(sys.argv[1:])
    sys.exit(0)

import hydra
from trainer.assemble.front import guarded
from trainer.assemble.stamp import register
register()

@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg):
    raise AssertionError("the jobs do not come here")

sys.exit(guarded(main))
"""
CONFIG = """
defaults:
  - _self_
  - override hydra/launcher: process
  - override hydra/sweeper: grid
name: ${stamp:}
x: 0.0
act: complete
sleep: 0.2
trainer: {devices: 1, accelerator: cpu}
task: {monitor: loss, mode: min}
resume: {path: null}
hydra:
  run: {dir: 'outputs/${name}'}
  sweep: {dir: 'outputs/${name}', subdir: '${hydra.job.num}'}
  output_subdir: null
"""
DEATHS = ("raise", "code", "kill", "term", "hang", "leave")
GRID = (f"act={','.join(DEATHS)}", "x=linspace(1,4,4)", "hydra.launcher.jobs=6")
SEARCH = ("hydra/sweeper=search", "x=interval(1,4)", "hydra.sweeper.trials=24", "hydra.sweeper.startup=3")


@dataclass(frozen=True)
class Figures:
    """What a sweep came to that was killed `kills` times, over `starts` starts of its driver."""

    jobs: int
    kills: int
    starts: int
    completed: int
    lost: int
    doubled: int
    died: dict[str, int]
    seconds: float


def toy(folder: Path) -> Path:
    """The program of the jobs and of their driver, in a folder of its own."""
    (folder / "conf").mkdir(parents=True)
    (folder / "train.py").write_text(PROGRAM)
    (folder / "conf" / "train.yaml").write_text(CONFIG)
    return folder


def driver(app: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start the driver of the sweep `s`; what it prints goes to a file."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CADENCE_STAMP", "SLURM_", "HYDRA_"))}
    given = {word.partition("=")[0]: word for word in ("resume.path=auto", "hydra.launcher.jobs=4", *words)}
    command = [sys.executable, "train.py", "-m", "name=s", *given.values()]
    with (app / "driver.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=app, env=env | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=subprocess.STDOUT
        )


def endure(app: Path, words: tuple[str, ...], kills: int, seed: int, longest: float = 3.0) -> Figures:
    """Kill the driver up to `kills` times, each at a random moment, then let it go on until nothing is left to do."""
    draw, begun, starts, killed = random.Random(seed), time.monotonic(), 0, 0
    died: Counter[str] = Counter()
    while True:
        starts += 1
        process = driver(app, *words, "hydra.launcher.timeout=2")
        if killed < kills:
            try:
                code = process.wait(draw.uniform(0.2, longest))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                killed += 1
                _wait_until_free(app)
                continue
        code = process.wait()
        died.update(" ".join(job["error"].split()[:3]) for job in _jobs(app) if job["status"] == "failed")
        if code == 0 and killed < kills:  # it was faster: there is nothing left to kill
            break
        if code == 0 or starts > kills + 10:
            break
    seconds = round(time.monotonic() - begun, 1)
    folders = [Path(job["folder"]) for job in _jobs(app)]
    ends = [len(_lines(folder / "completions")) for folder in folders]
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
    """Until the jobs of a killed driver have been ended."""
    import fcntl

    folder = app / "outputs" / "s"
    while folder.exists():
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(0.05)
        finally:
            os.close(held)


def _jobs(app: Path) -> list[dict[str, str]]:
    path = app / "outputs" / "s" / "sweep.json"
    jobs: list[dict[str, str]] = json.loads(path.read_text())["jobs"] if path.exists() else []
    return jobs


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Print the figures, and what the drivers have said where they are not as they should be."""
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
