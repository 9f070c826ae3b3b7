"""Which runs may be compared: those of the same data, split and task, and of the same loss or metric that judges."""

from collections.abc import Sequence
from typing import Any

from trainer.tools.report.runs import Run

TASK = (
    *("data._target_", "data.path", "data.name", "data.val_path", "data.test_path", "data.split", "data.val_split"),
    *("data.test_split", "data.val_fraction", "data.test_fraction", "data.val_samples", "data.test_samples"),
    *("data.split_seed", "data.folds", "data.target", "data.label", "data.classes", "data.features", "data.text"),
    *("data.inputs", "data.kind", "data.numbers", "data.categories", "data.max_length", "data.context"),
    *("data.tokenizer", "data.packed", "data.ignore_index"),
    *("trainer.lightning.limit_val_batches", "trainer.lightning.limit_test_batches"),
    *("task._target_", "task.step._target_"),
)
"""The keys that say what is predicted from what, and on which samples a run is scored."""
WITHIN = ("data.val.", "data.test.", "data.module.", "data.tokenizer.")
LOSS = ("task.loss.", "task.step.")
"""The starts of keys that decide the value of a loss; runs that differ in them have metrics in common."""


def comparable(runs: Sequence[Run], metric: str) -> tuple[list[Run], dict[int, str]]:
    """The largest part of the runs that may be compared, and for each other run, by its number, in what it differs.

    A run whose config is not known stays.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.config:
            groups.setdefault(repr(_task_of(run, metric)), []).append(run)
    if len(groups) < 2:
        return list(runs), {}
    kept = max(groups.values(), key=len)
    first, ours = _task_of(kept[0], metric), {run.number for run in kept}
    apart = {run.number: _difference(_task_of(run, metric), first) for run in runs if run.config}
    left = {number: why for number, why in apart.items() if number not in ours}
    return [run for run in runs if run.number not in left], left


def _task_of(run: Run, metric: str) -> dict[str, Any]:
    of_metric = (
        LOSS
        if metric.rpartition("/")[2] == "loss"
        else (f"task.metrics.{metric.partition('/')[2].partition('/')[0]}.",)
    )
    found = {key: value for key, value in run.config.items() if key in TASK or key.startswith((*WITHIN, *of_metric))}
    return {key: found[key] for key in sorted(found) if not key.endswith(("_partial_", ".seed", ".batch_size"))}


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
    shown = ", ".join(f"{key} {one.get(key)} and not {other.get(key)}" for key in keys[:2])
    return f"of another task ({shown})" if keys else ""
