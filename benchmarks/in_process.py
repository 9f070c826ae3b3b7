"""Jobs per minute of whole sweeps: a process for each job, one for all, and one in which alike jobs are stacked.

    python benchmarks/in_process.py                              # 64-32-10, 64 rates, SGD and AdamW, 117 updates
    python benchmarks/in_process.py --updates 1170 --device gpu

Each sweep is the command `cadence train -m` with all that it does: driver, imports, config, data, training, validation,
test, log, checkpoints, result. Times are processor time of all its processes on the CPU, which other programs do not
change much, and wall time on a GPU. The rounds are interleaved; the median is shown. With a process for each job,
`--few` jobs are measured, since each costs the same; with one process for all, `--some` of them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAUNCHERS = {
    "process": ["hydra/launcher=process"],
    "in_process, stack=false": ["hydra/launcher=in_process", "hydra.launcher.stack=false"],
    "in_process": ["hydra/launcher=in_process"],
}


def seconds(launcher: str, count: int, optimizer: str, given: argparse.Namespace) -> float:
    """Seconds for a sweep of so many rates."""
    rates = ",".join(f"{10 ** (-3 + 2 * i / max(count - 1, 1)):.6g}" for i in range(count))
    words = [f"optimizer={optimizer}", f"optimizer.lr={rates}", f"model.hidden=[{given.width}]", "trainer.threads=1"]
    words += [f"trainer.duration={given.updates}", f"trainer.validate={given.updates}", "callbacks=none"]
    words += [f"trainer.accelerator={given.device}", *LAUNCHERS[launcher]]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        started, before = time.perf_counter(), os.times()
        command = [sys.executable, "-m", "cadence.train", "-m", *words]
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        after = os.times()
        assert len(list(Path(folder).glob("outputs/*/*/result.json"))) == count
    if given.device == "gpu":
        return time.perf_counter() - started
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    """Print a row for each optimizer and launcher."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", default="sgd,adamw")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--some", type=int, default=16)
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--updates", type=int, default=117)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    given = parser.parse_args()
    counts = dict(zip(LAUNCHERS, (given.few, given.some, given.count), strict=True))
    print(f"jobs per minute, 64-{given.width}-10, {given.updates} updates, {given.device}")
    for optimizer in given.optimizers.split(","):
        found: dict[str, list[float]] = {name: [] for name in LAUNCHERS}
        for _ in range(given.rounds):
            for name, count in counts.items():
                found[name].append(60 * count / seconds(name, count, optimizer, given))
        base = statistics.median(found["process"])
        for name, rows in found.items():
            middle = statistics.median(rows)
            print(f"{optimizer:8} {name:24} {counts[name]:4} jobs {middle:8.1f}  {middle / base:6.1f} ×", flush=True)


if __name__ == "__main__":
    main()
