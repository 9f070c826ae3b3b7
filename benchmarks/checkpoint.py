"""Time the save and the read of a checkpoint: Cadence beside torch's savers, in shuffled order in each round.

    python benchmarks/checkpoint.py --megabytes 500 --rounds 9

The state is that of AdamW: weights and two moments, in float32 tensors of 4 MB. Cadence and `torch.save` write under
another name, sync the file and the folder, and rename; the training thread waits for all of it. The asynchronous saver,
`torch.distributed.checkpoint.async_save`, returns when it has copied the state; it writes in a thread, without a
checksum, and the table has the time until it is done, too. Beside the time of the clock the table has that of the
processor, which other programs on the machine change less.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402
from rich.box import SIMPLE  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

from benchmarks.compared import Line, keep, line, show_lines  # noqa: E402
from benchmarks.report import machine  # noqa: E402
from trainer.checkpoint.finite import nonfinite  # noqa: E402
from trainer.checkpoint.io import FORMAT, read  # noqa: E402
from trainer.files.atomic import replaced  # noqa: E402
from trainer.files.checksums import ChecksumWriter, verify  # noqa: E402

Times = tuple[float, float]
"""Seconds of the clock and of the processor."""


class TimedWriter(ChecksumWriter):
    """Counts the time that the checksum takes."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.spent = (0.0, 0.0)

    def _take(self, data: Any) -> None:
        clock, processor = timed(lambda: super(TimedWriter, self)._take(data))
        self.spent = (self.spent[0] + clock, self.spent[1] + processor)


def state_of(megabytes: float) -> dict[str, Any]:
    """A checkpoint of so many megabytes."""
    count = max(1, round(megabytes / 12))
    parts = [[torch.randn(1000, 1000) for _ in range(count)] for _ in range(3)]
    moments = {i: {"exp_avg": one, "exp_avg_sq": other} for i, (one, other) in enumerate(zip(*parts[1:], strict=True))}
    weights = {f"net.{i}": one for i, one in enumerate(parts[0])}
    return {
        "cadence": {"updates": 1, "format": FORMAT},
        "state_dict": weights,
        "optimizer_states": [{"state": moments}],
    }


def timed(action: Callable[[], Any]) -> Times:
    clock, processor = perf_counter(), thread_time()
    action()
    return perf_counter() - clock, thread_time() - processor


def plainly(state: dict[str, Any], path: Path) -> None:
    with replaced(path, durable=True) as temporary:
        torch.save(state, temporary)


def checked(state: dict[str, Any], path: Path, spent: list[Times]) -> None:
    """Save as `AtomicCheckpointIO` does, and add the time that the checksum takes of it to `spent`."""
    with replaced(path, durable=True) as temporary, temporary.open("wb") as file:
        writer = TimedWriter(file)
        torch.save(state, writer)  # type: ignore[arg-type]
        writer.finish()
    spent.append(writer.spent)


def used(content: dict[str, Any]) -> None:
    """Read all tensors of a checkpoint that is mapped from its file."""
    for leaf in tree_leaves(content):
        if isinstance(leaf, torch.Tensor):
            leaf.clone()


def copied(state: dict[str, Any]) -> Any:
    return tree_map(lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, state)


def measured(megabytes: float, rounds: int, folder: Path) -> dict[str, list[Times]]:
    """The times of each action in each round."""
    state, path, plain = state_of(megabytes), folder / "a.ckpt", folder / "b.ckpt"
    checksums: list[Times] = []
    blank = copied(state)
    in_background(state, folder / "c")
    tensors = {f"{i}": leaf for i, leaf in enumerate(tree_leaves(state)) if isinstance(leaf, torch.Tensor)}
    actions: dict[str, Callable[[], Any]] = {
        "torch.save": lambda: plainly(state, plain),
        "Cadence": lambda: checked(state, path, checksums),
        "check that it is finite": lambda: nonfinite(tensors),
        "copy in memory": lambda: copied(state),
        "read by torch.load": lambda: used(torch.load(plain, weights_only=True, mmap=True)),
        "read by Cadence": lambda: used(read(path)),
        "verify": lambda: verify(path),
        "read by torch.distributed.checkpoint": lambda: loaded(blank, folder / "c"),
    }
    found: dict[str, list[Times]] = {name: [] for name in actions}
    for action in actions.values():
        action()
    checksums.clear()
    in_thread: dict[str, list[Times]] = {"async_save, until it returns": [], "async_save, until it is done": []}
    others = ["async_save", *actions]
    for _ in range(rounds):
        for name in random.sample(others, len(others)):
            if name in actions:
                found[name].append(timed(actions[name]))
            else:
                for times, one in zip(in_thread.values(), in_background(state, folder / "c"), strict=True):
                    times.append(one)
    return {**found, **in_thread, "checksum": checksums}


def in_background(state: dict[str, Any], path: Path) -> tuple[Times, Times]:
    """Save by torch's asynchronous saver: the time that the training thread waits, and the time until it is saved."""
    from torch.distributed.checkpoint import async_save

    shutil.rmtree(path, ignore_errors=True)
    begun, pending = (perf_counter(), process_time()), list[Any]()
    with warnings.catch_warnings(action="ignore"):  # that there is one process
        waited = timed(lambda: pending.append(async_save(state, checkpoint_id=path)))
        pending[0].result()
    return waited, (perf_counter() - begun[0], process_time() - begun[1])


def loaded(blank: dict[str, Any], path: Path) -> None:
    """Read what the asynchronous saver wrote into tensors that are there."""
    from torch.distributed.checkpoint import load

    with warnings.catch_warnings(action="ignore"):
        load(blank, checkpoint_id=path)


def lines_of(found: dict[str, list[Times]], size: int) -> list[Line]:
    """The save and the read of Cadence beside torch's, by the clock."""
    clock = {name: [one[0] for one in times] for name, times in found.items()}
    saved = [sum(both) for both in zip(clock["Cadence"], clock["check that it is finite"], strict=True)]
    what = f"{size / 1e6:.0f} MB"
    return [
        line(f"save, {what}: the wait", saved, "torch.save", clock["torch.save"]),
        line(f"save, {what}: the wait", saved, "async_save, its wait", clock["async_save, until it returns"]),
        line(f"save, {what}: until it is on disk", saved, "async_save", clock["async_save, until it is done"]),
        line(f"read, {what}", clock["read by Cadence"], "torch.load, mapped", clock["read by torch.load"]),
        line(
            f"read, {what}",
            clock["read by Cadence"],
            "torch.distributed.checkpoint",
            clock["read by torch.distributed.checkpoint"],
        ),
    ]


def show(found: dict[str, list[Times]], size: int) -> None:
    """Print a table of medians and ranges."""
    table = Table("seconds", "median", "min to max", "processor", "min to max", box=SIMPLE)
    for name, times in found.items():
        clock, processor = zip(*times, strict=True)
        cells = [
            text for one in (clock, processor) for text in (f"{median(one):.2f}", f"{min(one):.2f} to {max(one):.2f}")
        ]
        table.add_row(name, *cells)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    shares = [
        median(part[i] / whole[i] for part, whole in zip(found["checksum"], found["Cadence"], strict=True))
        for i in (0, 1)
    ]
    console.print(
        f"{size / 1e6:.0f} MB. The checksum's share of the save: {shares[0]:.1%} of the clock, {shares[1]:.1%} of the "
        f"processor; load {machine(1)['load']:.1f}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=500)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to write; by default the folder for temporary files")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measured(options.megabytes, options.rounds, Path(folder))
        size = (Path(folder) / "a.ckpt").stat().st_size
    show(found, size)
    lines = lines_of(found, size)
    show_lines(lines)
    keep(options.out, {"lines": lines, "machine": machine(options.threads), "rounds": found})


if __name__ == "__main__":
    main()
