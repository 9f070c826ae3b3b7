"""A long run of the default kind, sampled all along: memory, open files, threads and time per update must stay flat.

    python tests/soak.py --updates 200000 --validations 1000

Rule: between the second and the last quarter of the samples, the median resident memory grows by at most 2 %, the most
open files and threads do not grow, and the median CPU time per update grows by at most 25 %. Exit code 1 otherwise. A
quarter comes before any of this counts: caches fill in it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from pytorch_lightning import Callback, Trainer

QUARTERS = 4
MEMORY, CPU = 1.02, 1.25
"""How much larger the last quarter may be than the second one."""


class Sample(Callback):
    """Appends to `path` about every `every` updates: memory, open files, threads, and the time since the last line."""

    def __init__(self, path: str, every: int) -> None:
        self.path, self.every = path, every
        self.last = (0, 0.0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.last = (pl_module.clock.t, time.perf_counter(), time.process_time())

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *rest: Any) -> None:
        updates = pl_module.clock.t - self.last[0]
        if updates < self.every:
            return
        now = (pl_module.clock.t, time.perf_counter(), time.process_time())
        line = {
            "update": now[0],
            "memory": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
            "files": len(list(Path("/proc/self/fd").iterdir())),
            "threads": len(list(Path("/proc/self/task").iterdir())),
            "wall": 1e3 * (now[1] - self.last[1]) / updates,
            "cpu": 1e3 * (now[2] - self.last[2]) / updates,
        }
        with Path(self.path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.last = (pl_module.clock.t, time.perf_counter(), time.process_time())


def quarters(samples: list[dict[str, float]]) -> list[dict[str, float]]:
    """Each quarter in one line: medians, and the most files and threads."""
    size = len(samples) // QUARTERS
    found = []
    for i in range(QUARTERS):
        part = samples[i * size : (i + 1) * size]
        found.append(
            {name: median(one[name] for one in part) for name in ("memory", "wall", "cpu")}
            | {name: max(one[name] for one in part) for name in ("files", "threads")}
        )
    return found


def faults(found: list[dict[str, float]]) -> list[str]:
    """What is not flat."""
    second, last = found[1], found[-1]
    limits = {"memory": MEMORY, "cpu": CPU, "files": 1, "threads": 1}
    return [
        f"{name}: {second[name]:g} → {last[name]:g}"
        for name, most in limits.items()
        if last[name] > most * second[name]
    ]


def train(updates: int, validations: int, folder: Path) -> list[dict[str, float]]:
    """Train in this process, and return the samples."""
    import cadence

    os.chdir(folder)
    samples = folder / "samples.jsonl"
    cadence.fit(
        *("data=synthetic", "data.samples=4096", "data.batch_size=32", "model.hidden=[64]", "model.dropout=0.1"),
        *("optimizer=adamw", "schedule=cosine_warmup", "average=ema", "trainer.threads=1", "trainer.accelerator=cpu"),
        *(f"trainer.duration={updates}", f"trainer.validate={updates // validations}", "name=soak"),
        *("+callbacks.sample._target_=tests.soak.Sample", f"+callbacks.sample.path='{samples}'", "allow=[tests]"),
        f"+callbacks.sample.every={max(1, updates // 400)}",
    )
    lines = samples.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200_000)
    parser.add_argument("--validations", type=int, default=1_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = quarters(train(asked.updates, asked.validations, Path(folder)))
    for number, part in enumerate(found, 1):
        print(
            f"quarter {number}: {part['memory']:.1f} MB, {part['files']:.0f} files, {part['threads']:.0f} threads, "
            f"{part['wall']:.3f} ms an update ({part['cpu']:.3f} ms of CPU)"
        )
    wrong = faults(found)
    print(
        "not flat: " + "; ".join(wrong)
        if wrong
        else f"flat over {asked.updates} updates, {asked.validations} validations"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(main())
