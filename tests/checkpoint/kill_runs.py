"""Kills runs at random moments, goes on with resume=auto until they are done, and compares the bits.

    python tests/checkpoint/kill_runs.py --points 100

Each run is a process forked after the imports. It is killed once at a random moment between its start and the time that
an undisturbed run takes, and every third run a second time while it goes on. At its end its newest and its best
checkpoint must be those of the undisturbed run to the bit, and no temporary file may be left.
"""

import argparse
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)] * (str(ROOT) not in sys.path)

from cadence.fitting import fit  # noqa: E402
from trainer.checkpoint.io import BEST, checkpoints_in, read  # noqa: E402
from trainer.log.validations import read_validations  # noqa: E402

WORDS = (
    *("data=synthetic", "data.samples=256", "data.val_samples=32", "data.test_samples=0", "data.batch_size=16"),
    *("model.hidden=[64]", "model.dropout=0.2", "average=ema", "trainer.duration=160", "trainer.validate=20"),
    *("trainer.checkpoint=7", "trainer.steps_per_execution=5", "trainer.accelerator=cpu", "callbacks=none"),
    *("trainer.threads=1", "schedule=cosine_warmup"),
)


def start(name: str) -> int:
    """Train in a forked process, from the newest checkpoint if there is one; its id."""
    child = os.fork()
    if not child:
        os.setsid()
        with Path(f"{name}.log").open("a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            code = 1
            try:
                fit(*WORDS, f"name={name}", "resume=auto", which="last")
                code = 0
            finally:
                os._exit(code)
    return child


def done(name: str) -> bool:
    path = Path("outputs", name, "result.json")
    return path.exists() and json.loads(path.read_text())["status"] == "completed"


def ending(name: str) -> dict[str, Any]:
    """Everything in the newest and the best checkpoint that two runs of one config have in common."""
    folder, found = Path("outputs", name), {}
    for path in (checkpoints_in(folder / "checkpoints")[-1], folder / "checkpoints" / BEST):
        content = read(path)
        del content["epoch"]  # Lightning counts the starts as well, and nothing reads it
        for key, leaf in tree_flatten_with_path(content)[0]:
            if not keystr(key).endswith("['config']['name']"):
                found[f"{path.name} {keystr(key)}"] = leaf.clone() if isinstance(leaf, torch.Tensor) else leaf
    found["validations"] = {row["update"]: row for row in read_validations(folder)}
    found["status"] = json.loads((folder / "result.json").read_text())["status"]
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    def same(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b

    return [key for key in {**one, **other} if key not in one or key not in other or not same(one[key], other[key])]


def kill(points: int, seed: int) -> Counter[str]:
    """Runs that were killed, and how many of them ended with other bits, or left a temporary file."""
    draw, counts = random.Random(seed), Counter()
    began = time.monotonic()
    os.waitpid(start("whole"), 0)
    whole, expected = time.monotonic() - began, ending("whole")
    for number in itertools.count():
        if counts["runs"] == points:
            return counts
        name, kills, wanted = f"run-{number}", 0, 1 + (number % 3 == 0)
        while not done(name):
            child = start(name)
            if kills < wanted:
                time.sleep(draw.uniform(0, whole / (kills + 1)))
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            kills += status == signal.SIGKILL  # not where it had just ended
            if status not in (0, signal.SIGKILL):
                counts["failed"] += 1
                break
        counts["runs"] += bool(kills)
        counts["kills"] += kills
        different = differences(expected, ending(name))
        left = list(Path("outputs", name).rglob(".tmp-*"))
        counts["same bits"] += bool(kills) and not different
        counts["orphans"] += len(left)
        if different or left:
            print(f"{name}: {different[:5]} differ, {left} left", flush=True)
        elif number % 10 == 9:
            print(f"{dict(counts)}", flush=True)
    raise AssertionError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        counts = kill(options.points, options.seed)
        os.chdir("/")
    print(", ".join(f"{counts[what]} {what}" for what in ("runs", "kills", "same bits", "failed", "orphans")))
    sys.exit(bool(counts["failed"] or counts["orphans"] or counts["same bits"] < counts["runs"]))


if __name__ == "__main__":
    main()
