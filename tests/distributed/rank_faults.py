"""A rank of two is killed, stopped, raises, meets NaN or runs out of memory: all end in time, and the run can go on.

    python tests/distributed/rank_faults.py --strategies ddp fsdp

prints for each fault after how many seconds the last process was gone, the exit code, the cause that was told, and
whether `resume=auto` then ends in the weights of a run that nobody has harmed.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from tests.distributed.faults import fault, result, words
from tests.distributed.worlds import ROOT, Script

SECONDS = 60
TOLD = {
    "kill": ("was killed by SIGKILL", "is gone: process"),
    "stop": ("has not answered for", "has been stopped for"),
    "raise": ("ValueError: planted",),
    "not_a_number": ("nan",),
    "memory": ("memory",),
}
"""Each fault, and what the last line or the result says of it, in one of these ways."""
HIDDEN = ("CADENCE_", "SLURM_", "HYDRA_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_")


def start(folder: Path, strategy: str, *more: str) -> Script:
    """`python train.py trainer=STRATEGY`, on two processes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    plain = [word for word in words("run", *more, timeout=60) if not word.startswith("trainer=")]
    return Script(ROOT / "train.py", [f"trainer={strategy}", "trainer.devices=2", *plain], folder, environment)


def session(leader: int) -> list[int]:
    """The processes of a session that run, or are stopped."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == leader and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def suffer(folder: Path, strategy: str, how: str, rank: int) -> tuple[float, int | None, str]:
    """Seconds from the fault until no process is left, the exit code, and the error that is told."""
    process = start(folder, strategy, *fault(rank, "training", how))
    end = time.monotonic() + 400
    while not (folder / "harmed").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    begun = time.monotonic()
    while (session(process.pid) or process.poll() is None) and time.monotonic() < begun + 2 * SECONDS:
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    process.kill()
    out, err = process.communicate()
    lines = [line for line in err.splitlines() if line.strip()]
    left = result(folder, "run")["error"] if (folder / "outputs/run/result.json").exists() else "no result"
    return seconds, process.returncode, f"{lines[-1] if lines else ''} | {left}"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the newest checkpoint."""
    newest = max(folder.glob("outputs/run/checkpoints/update-*.ckpt"))
    state: dict[str, torch.Tensor] = torch.load(newest, weights_only=True)["state_dict"]
    return state


def finish(folder: Path, strategy: str, *more: str) -> dict[str, torch.Tensor]:
    """Train to the end, and give the weights."""
    process = start(folder, strategy, *more)
    err = process.communicate(400)[1]
    assert process.returncode == 0, err
    assert result(folder, "run")["status"] == "completed"
    return weights(folder)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether the weights are the same to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def check(folder: Path, case: tuple[str, str, int], unharmed: dict[str, torch.Tensor]) -> tuple[bool, str]:
    """Whether a fault ends as it should, and what is printed of it."""
    strategy, how, rank = case
    seconds, code, told = suffer(folder, strategy, how, rank)
    named = any(text.lower() in told.lower() for text in TOLD[how])
    try:
        same = equal(finish(folder, strategy, "resume=auto"), unharmed)
    except AssertionError as error:
        same, told = False, f"{told} | then {' '.join(str(error).split())[-300:]}"
    good = seconds <= SECONDS and code != 0 and named and same
    line = f"{strategy:5} {how:12} rank {rank}  {seconds:5.1f} s  exit {code!s:4} {'same' if same else 'OTHER'}  {told}"
    return good, line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", nargs="+", default=["ddp", "fsdp"])
    parser.add_argument("--faults", nargs="+", default=list(TOLD))
    options = parser.parse_args()
    count = good = 0
    for strategy in options.strategies:
        with tempfile.TemporaryDirectory() as place:
            unharmed = finish(Path(place), strategy)
        for how, rank in itertools.product(options.faults, (0, 1)):
            with tempfile.TemporaryDirectory() as place:
                well, line = check(Path(place), (strategy, how, rank), unharmed)
            count, good = count + 1, good + well
            print(line if well else f"FAILED {line}", flush=True)
    print(f"{good} of {count} faults as they should")
    return 0 if good == count else 1


if __name__ == "__main__":
    sys.exit(main())
