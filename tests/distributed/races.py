"""Starts of one run folder at once: exactly one trains, the others exit 2; and a killed holder is followed at once.

    python tests/distributed/races.py --races 20

prints each race, and how many went as they should. The test beside it runs a few of them.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.distributed.worlds import ROOT, Script

UPDATES = 1200
WORDS = (
    *("name=run", f"trainer.duration={UPDATES}", "trainer.validate=300", "trainer.accelerator=cpu"),
    *("trainer.threads=1", "callbacks=none", "warmup=none", "model.hidden=[8]", "data.batch_size=16"),
)
HIDDEN = ("CADENCE_", "SLURM_", "HYDRA_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_")


class Failed(Exception):
    """A race did not go as it should."""


def start(folder: Path, *words: str) -> Script:
    """`python train.py WORDS`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return Script(ROOT / "train.py", words, folder, environment)


def one_wins(starts: list[Script], folder: Path, result: str = "result.json") -> str:
    """Wait for all: one is done, the others are refused in one line, and one log is in the folder."""
    said = [process.communicate(600)[1].splitlines() for process in starts]
    codes = [process.returncode for process in starts]
    if sorted(map(str, codes)) != ["0", *"2" * (len(starts) - 1)]:
        raise Failed(f"exit codes {codes}: {said}")
    for code, lines in zip(codes, said):
        last = lines[-1] if lines else ""
        late = "holds a run already" in last  # it started so late that it saw the run of the winner
        if code == 2 and not late and not ("belongs to a " in last and ": process " in last):
            raise Failed(f"refused otherwise: {lines}")
    if not (folder / "outputs/run" / result).exists():
        raise Failed(f"no {result}")
    if list(folder.rglob(".lock")):
        raise Failed("a lock is left")
    logs = [len(list(path.parent.glob("events.out.tfevents*"))) for path in folder.rglob("result.json")]
    if set(logs) != {1}:
        raise Failed(f"{logs} logs")
    return f"exit codes {codes}"


def status(folder: Path) -> tuple[str, int]:
    """How the run has ended, and after how many updates."""
    result = json.loads((folder / "outputs/run/result.json").read_text())
    return result["status"], result["updates"]


def until_it_trains(folder: Path, seconds: float = 300) -> None:
    """Wait for the first checkpoint."""
    end = time.monotonic() + seconds
    while not list(folder.glob("outputs/run/checkpoints/update-*.ckpt")):
        if time.monotonic() > end:
            raise Failed("it does not begin")
        time.sleep(0.01)


def several(count: int, *more: str) -> Callable[[Path, random.Random], str]:
    """So many starts within a fifth of a second."""

    def race(folder: Path, chance: random.Random) -> str:
        starts = []
        for _ in range(count):
            starts.append(start(folder, *WORDS, *more))
            time.sleep(chance.random() / 5)
        told = one_wins(starts, folder)
        if status(folder) != ("completed", UPDATES):
            raise Failed(f"the result is {status(folder)}")
        return told

    return race


def auto_while_it_runs(folder: Path, chance: random.Random) -> str:
    """`resume=auto` into a run that trains for longer than the second start takes, also on a busy machine."""
    words = [*(word for word in WORDS if "duration" not in word), f"trainer.duration={20 * UPDATES}"]
    first = start(folder, *words)
    until_it_trains(folder)
    (checkpoint,) = list(folder.glob("outputs/run/checkpoints/update-*.ckpt"))[:1]
    how = chance.choice(["resume=auto", f"resume.path='{checkpoint}'"])
    return f"{how.partition('=')[0]}: {one_wins([first, start(folder, *words, how)], folder)}"


def killed(folder: Path, chance: random.Random) -> str:
    """The holder is killed, and started again at once: the new start goes on to the end."""
    first = start(folder, *WORDS)
    until_it_trains(folder)
    time.sleep(chance.random() / 5)
    first.kill()
    again = start(folder, *WORDS, "resume=auto")
    err = again.communicate(600)[1]
    if again.returncode != 0 or status(folder) != ("completed", UPDATES):
        raise Failed(f"exit code {again.returncode}: {err}")
    if list(folder.rglob(".lock")):
        raise Failed("a lock is left")
    return "goes on"


def two_sweeps(folder: Path, chance: random.Random) -> str:
    """Two sweeps of one name."""
    words = [word for word in WORDS if not word.startswith("trainer.duration")]
    starts = [start(folder, "-m", *words, "trainer.duration=300,301") for _ in range(2)]
    return one_wins(starts, folder, "sweep.json")


RACES: dict[str, Callable[[Path, random.Random], str]] = {
    "two starts": several(2),
    "three starts": several(3),
    "killed and started again": killed,
    "resumed while it runs": auto_while_it_runs,
    "two with resume=auto": several(2, "resume=auto"),
    "two sweeps": two_sweeps,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--races", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, good = random.Random(options.seed), 0
    kinds = list(RACES)
    for number in range(options.races):
        kind = kinds[number % len(kinds)]
        with tempfile.TemporaryDirectory() as place:
            begun = time.monotonic()
            try:
                told = RACES[kind](Path(place), chance)
                good += 1
            except Failed as failed:
                told = f"FAILED: {failed}"
            print(f"{number + 1:3}  {kind:26} {time.monotonic() - begun:6.1f} s  {told}", flush=True)
    print(f"{good} of {options.races} races as they should")
    return 0 if good == options.races else 1


if __name__ == "__main__":
    sys.exit(main())
