"""The numbers of a benchmark: their medians and ratios, the machine, and a table."""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from benchmarks.loops import Spent

PACKAGES = "torch pytorch-lightning tensorboard numpy transformers accelerate".split()
NAMES = {
    "bare": "bare PyTorch",
    "cadence": "Cadence",
    "unlogged": "Cadence, logger=none",
    "lightning": "Lightning",
    "lightning_sparse": "Lightning, 1 in 50",
    "transformers": "transformers",
}

_ALL = (
    "All loops end with the same weights to the bit; all but the bare one log loss and learning rate of every update "
    "to TensorBoard, unless stated otherwise."
)


def summary(times: Sequence["Spent"], bare: Sequence["Spent"]) -> dict[str, Any]:
    """Microseconds per update; the ratio of the medians, and the lowest and highest ratio of one round."""
    wall = [1e6 * time.wall for time in times]
    ratios = [ours.wall / theirs.wall for ours, theirs in zip(times, bare)]
    return {
        "median_us": median(wall),
        "min_us": min(wall),
        "max_us": max(wall),
        "ratio": median(wall) / median(1e6 * time.wall for time in bare),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ratio_cpu": median(time.cpu for time in times) / median(time.cpu for time in bare),
        "rounds_us": wall,
    }


def machine(threads: int) -> dict[str, Any]:
    """The machine, the versions and the command of a measurement."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "versions": versions,
        "command": shlex.join(["python", *sys.argv]),
    }


def show(report: dict[str, Any]) -> None:
    """Print the table, what was skipped, and the other numbers."""
    console, where, rows = Console(highlight=False, soft_wrap=True), report["machine"], report["rows"]
    table = Table("µs per update", box=SIMPLE)
    for title in ("median", "min", "max", "× bare", "of a round", "CPU time"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, row in rows.items():
        times = [f"{row[key]:,.0f}" for key in ("median_us", "min_us", "max_us")]
        spread = f"{row['ratio_min']:.2f}-{row['ratio_max']:.2f}"
        table.add_row(NAMES.get(name, name), *times, f"{row['ratio']:.2f}", spread, f"{row['ratio_cpu']:.2f}")
    console.print(table)
    rounds = len(rows["bare"]["rounds_us"])
    console.print(
        f"{report['updates']} updates; {rounds} {report['unit']}; {where['threads']} of {where['cores']} cores; "
        f"load {where['load']:.1f}. {report.get('note', _ALL)}"
    )
    for name, reason in report.get("skipped", {}).items():
        console.print(f"{NAMES[name]}: skipped, {reason}", markup=False)
    for name, seconds in report.get("seconds", {}).items():
        console.print(f"{name.replace('_', ' ')}: {seconds:.1f} s in all")
    if "val_loss" in report:
        console.print(f"validation loss {report['val_loss']:.4f} at best, after {report['updates']} updates")


def _processor() -> str:
    """The name of the processor, if the system knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
