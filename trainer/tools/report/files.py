"""All results as CSV and Parquet: a row for each run, a column for each override and each number."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.tools.report.runs import Run
from trainer.tools.report.study import Study, numeric

ENDS = ("updates", "total_updates", "seconds")


def rows(study: Study) -> list[dict[str, Any]]:
    """The table: what each run is, what it was told, what it reached; null where it has no such value."""
    asked = list(dict.fromkeys([*study.varied, *(key for run in study.runs for key in run.overrides)]))
    metrics = sorted({metric for run in study.runs for metric in run.metrics})
    return [_row(study, run, asked, metrics) for run in study.runs]


def save(study: Study, folder: Path) -> list[str]:
    """Write `results.csv` and `results.parquet`; their names."""
    table = rows(study)
    with (folder / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    import pandas

    columns = {name: _column([row[name] for row in table]) for name in table[0]}
    pandas.DataFrame(columns).to_parquet(folder / "results.parquet", index=False)
    return ["results.csv", "results.parquet"]


def _row(study: Study, run: Run, asked: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    best = run.result.get("best")
    given = {key: run.config.get(key, run.overrides.get(key)) for key in asked}
    return {
        "run": run.name,
        "status": run.status,
        "error": run.error,
        **{key: study.value(run, key) if isinstance(value, list | dict) else value for key, value in given.items()},
        **{metric: run.metrics.get(metric) for metric in metrics},
        "best_update": best.get("update") if isinstance(best, dict) else None,
        **{key: run.result.get(key) for key in ENDS},
        "global_batch": run.plan.get("global_batch"),
    }


def _column(values: Sequence[Any]) -> Any:
    """A column of one type: whole numbers, numbers or true and false with gaps, else text."""
    import pandas

    there = [value for value in values if value is not None]
    if there and all(isinstance(value, bool) for value in there):
        return pandas.array(list(values), dtype="boolean")
    if there and all(isinstance(value, int) and numeric(value) and abs(value) < 2**62 for value in there):
        return pandas.array(list(values), dtype="Int64")
    if there and all(numeric(value) for value in there):
        return pandas.array(list(values), dtype="Float64")
    return pandas.array([None if value is None else str(value) for value in values], dtype="string")
