"""The global batch of each run: what its update saw, however that came about."""

from collections.abc import Callable, Hashable, Sequence
from math import prod
from typing import Any

from trainer.tools.report.runs import Run

BATCH = "global batch"
PARTS = ("data.batch_size", "trainer.devices", "trainer.nodes", "trainer.accumulate")
"""What the global batch is the product of; processes that torchrun or Slurm has started are no number in a config."""


def planned(run: Run) -> float | None:
    """The global batch as the plan of the run has it; of a batch that grows, the first."""
    batch = run.plan.get("global_batch")
    good = isinstance(batch, int | float) and not isinstance(batch, bool) and 0 < batch < float("inf")
    return float(batch) if good else None  # type: ignore[arg-type]


def batches(runs: Sequence[Run], varied: Sequence[str], value: Callable[[Run, str], Any]) -> dict[int, float]:
    """The global batch by the number of the run, where it is known.

    A run that failed before it had a plan has that of a run with the same parts, or else in proportion to its parts.
    """
    parts = [key for key in PARTS if key in varied]
    found = {run.number: batch for run in runs if (batch := planned(run)) is not None}
    values = {run.number: [value(run, key) for key in parts] for run in runs}
    alike: dict[Hashable, set[float]] = {}
    for number, batch in found.items():
        alike.setdefault(tuple(values[number]), set()).add(batch)
    shares = {batch / size for number, batch in found.items() if (size := _product(values[number]))} or {1.0}
    for run in runs:
        if run.number not in found and parts:
            same = alike.get(tuple(values[run.number]), set())
            size = _product(values[run.number])
            if len(same) == 1:
                found[run.number] = next(iter(same))
            elif not same and size and len(shares) == 1:
                found[run.number] = size * next(iter(shares))
    return found


def _product(values: Sequence[Any]) -> float:
    """Zero where one of them is no number above zero."""
    good = all(isinstance(value, int | float) and not isinstance(value, bool) and value > 0 for value in values)
    return float(prod(values)) if good else 0.0
