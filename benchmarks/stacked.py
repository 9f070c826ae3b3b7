"""Jobs per minute: runs that train as one, one after another in one process, and each in a process of its own.

    python benchmarks/stacked.py                         # a net of 64-32-10, 64 rates, SGD and AdamW, 117 updates
    python benchmarks/stacked.py --widths 16,32,64,128,256,512,1024 --count 16 --no-processes
    python benchmarks/stacked.py --device gpu

`fit` is the training alone, with its log in memory; `job` is all that a run of a sweep needs: composed settings, data,
net, plan, training, validation, and its folder with config, plan and result. Times are of one thread: processor time on
the CPU, which other programs do not change much, and wall time on a GPU; the least of `--rounds`, in which all ways
take turns. A process of its own has the import of torch in it; it is measured on two jobs.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from trainer.cli.compose import compose_config  # noqa: E402
from trainer.config.components import Parts, build  # noqa: E402
from trainer.config.resolve import resolve  # noqa: E402
from trainer.config.variants import for_tuning  # noqa: E402
from trainer.run import fit  # noqa: E402
from trainer.tools.siblings import sibling  # noqa: E402
from trainer.tools.stacked import Stack  # noqa: E402
from trainer.tools.tune.members import Member, Members  # noqa: E402


class Benchmark:
    """Runs of one net and optimizer that differ in the rate."""

    def __init__(self, words: list[str], updates: int, device: str, folder: Path) -> None:
        self.words = [*words, f"trainer.accelerator={device}", "trainer.threads=1", "logger=none"]
        self.updates, self.device, self.folder = updates, device, folder
        cfg = for_tuning(compose_config(self.words))
        self.members = Members(cfg, self.words, folder, ["cadence", "train"])

    def numbered(self, i: int, count: int) -> Member:
        """Run number `i` of `count`, with rates over two decades."""
        return Member((f"optimizer.lr={10 ** (-3 + 2 * i / max(count - 1, 1)):.6g}",), 0, self.updates)

    def built(self, count: int) -> list[Parts]:
        """The parts of so many runs."""
        folders = [self.folder / str(i) for i in range(count)]
        return [build(resolve(self.members.settings(self.numbered(i, count))), one) for i, one in enumerate(folders)]

    def stacked_fit(self, count: int) -> float:
        """Seconds to train a stack."""
        (first,) = self.built(1)
        rates = [float(self.numbered(i, count).words[0].partition("=")[2]) for i in range(count)]
        parts = [first, *(sibling(first, rate, str(rate), self.folder / str(rate)) for rate in rates[1:])]
        return self.timed(lambda: Stack(parts).fit())

    def lone_fit(self, count: int) -> float:
        """Seconds to train runs one after another."""
        parts = self.built(count)
        for one in parts:
            one.trainer.callbacks.remove(one.checkpointing)  # type: ignore[attr-defined]
        fit(parts[0])
        return self.timed(lambda: [fit(one) for one in parts[1:]]) * count / (count - 1)

    def job(self, count: int, together: bool) -> float:
        """Seconds for whole jobs."""
        members = [self.numbered(i, count) for i in range(count)]
        if together:
            return self.timed(lambda: list(self.members.train_all(members)))
        return self.timed(lambda: [self.members.train(one) for one in members])

    def process(self, count: int) -> float:
        """Seconds for `count` jobs of `cadence train -m`, from the processor time of two."""
        words = [*self.words, "optimizer.lr=0.01,0.02", f"trainer.duration={self.updates}", "callbacks=none"]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        started, before = time.perf_counter(), os.times()
        command = [sys.executable, "-m", "cadence.train", "-m", *words, f"trainer.validate={self.updates}"]
        subprocess.run(
            command, cwd=self.folder, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True
        )
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        return (used if self.device == "cpu" else time.perf_counter() - started) * count / 2

    def timed(self, act: Callable[[], object]) -> float:
        """Seconds that `act` takes."""
        clock = time.process_time if self.device == "cpu" else time.perf_counter
        begun = clock()
        act()
        if self.device == "gpu":
            torch.cuda.synchronize()
        return clock() - begun


def measured(bench: Benchmark, count: int, few: int, rounds: int, processes: bool) -> list[float]:
    """Jobs per minute: fits stacked and lone, jobs stacked, lone, and each in a process of its own."""
    with contextlib.redirect_stdout(io.StringIO()):
        bench.stacked_fit(2)  # neither is counted
        bench.lone_fit(2)
        rows = [measured_once(bench, count, few, processes) for _ in range(rounds)]
    return [60.0 / min(column) for column in zip(*rows)]


def measured_once(bench: Benchmark, count: int, few: int, processes: bool) -> list[float]:
    """Seconds for each of these."""
    seconds = [bench.stacked_fit(count) / count, bench.lone_fit(few) / few]
    for together, jobs in ((True, count), (False, few)):
        with tempfile.TemporaryDirectory() as folder:
            bench.members.root = Path(folder)
            seconds += [bench.job(jobs, together) / jobs]
    return seconds + ([bench.process(1)] if processes else [])


def main() -> None:
    """Print a row for each width and optimizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="32")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--optimizers", default="sgd,adamw")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--few", type=int, default=8, help="runs that are timed one after another")
    parser.add_argument("--updates", type=int, default=117)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--no-processes", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"jobs per minute, {given.count} rates, {given.updates} updates, {given.device}, torch {torch.__version__}")
    names = ["fit stacked", "fit lone", "job stacked", "job lone", *([] if given.no_processes else ["job by -m"])]
    print(
        "  ".join(["optimizer".ljust(9), "hidden".ljust(12), *(name.rjust(11) for name in names), "   fit ×   job ×"])
    )
    for optimizer in given.optimizers.split(","):
        for width in given.widths.split(","):
            hidden = ",".join([width] * given.layers)
            words = [f"optimizer={optimizer}", f"model.hidden=[{hidden}]"]
            with tempfile.TemporaryDirectory() as folder:
                bench = Benchmark(words, given.updates, given.device, Path(folder))
                row = measured(bench, given.count, given.few, given.rounds, not given.no_processes)
            shown = [f"{one:11.0f}" for one in row] + [f"{row[0] / row[1]:8.1f}", f"{row[2] / row[3]:7.1f}"]
            print("  ".join([optimizer.ljust(9), f"[{hidden}]".ljust(12), *shown]), flush=True)


if __name__ == "__main__":
    main()
