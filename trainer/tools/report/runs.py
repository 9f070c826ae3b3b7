"""The runs below a folder, wherever they were made: settings, how they ended, what they reached, their curves."""

from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainer.cli.command import COMMAND
from trainer.cli.override import typed_values
from trainer.log.scalars import Points, scalars
from trainer.resume.changes import flat
from trainer.tools.run_folders import (
    CONFIG,
    PLAN,
    RESULT,
    Record,
    changes_of,
    error_of,
    find_folders,
    is_bookkeeping,
    metrics_of,
    parse_value,
    program_of,
    read_tree,
    state_of,
)

FOLD = "data.fold"
"""The key of the part of the training data that validates, in k-fold cross-validation."""
POINTS = 160
"""The most points of one curve of one run."""


@dataclass(frozen=True)
class Run:
    """One run: `overrides` as typed, `config` with dotted keys, `metrics` with None where one is not finite.

    `status` is completed, failed, interrupted, pruned or unfinished; `error` is the line that says why. `program` are
    the words of the command before the overrides.
    """

    number: int
    name: str
    folder: Path
    status: str
    error: str = ""
    overrides: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    program: tuple[str, ...] = COMMAND

    @cached_property
    def changes(self) -> tuple[str, ...]:
        """How resumes have changed it, each in one line."""
        return changes_of(self.plan)

    @cached_property
    def typed(self) -> dict[str, str | None]:
        """The values of the overrides by key, as typed: None for a key that is removed."""
        return typed_values(self.overrides)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The overrides as values, without the name and place of the run."""
        values = {key: "removed" if text is None else parse_value(text) for key, text in self.typed.items()}
        return {key: value for key, value in values.items() if not is_bookkeeping(key)}

    @property
    def seed(self) -> Any:
        """The seed, where the run says it."""
        return self.config.get("seed", self.settings.get("seed"))

    @property
    def repeat(self) -> Any:
        """What tells it apart from other runs of its configuration: the seed, with the fold where there are folds."""
        fold = self.config.get(FOLD, self.settings.get(FOLD))
        return self.seed if fold is None else (self.seed, fold)

    def value(self, metric: str) -> float | None:
        """The metric of a completed run, where it is finite."""
        return self.metrics.get(metric) if self.status == "completed" else None


def find_runs(root: Path) -> list[Run]:
    """Every run below `root`, in the order of the jobs. A folder that was moved is read as the original.

    Raises:
        ConfigError: `root` is no folder, or holds no run.
    """
    runs = [_run(i, place, root, record) for i, (place, record) in enumerate(find_folders(root).items())]
    programs = {run.program for run in runs if run.plan}
    shared = programs.pop() if len(programs) == 1 else COMMAND
    return [run if run.plan else replace(run, program=shared) for run in runs]  # some failed before they had a plan


def _run(i: int, place: Path, root: Path, record: Record) -> Run:
    result = read_tree(place / RESULT)
    status = state_of(result, record)
    config = flat(tree) if (tree := read_tree(place / CONFIG)) else {}
    overrides = read_tree(place / "overrides.yaml", list) or record.get("overrides")
    plan = read_tree(place / PLAN) or {}
    return Run(
        number=i,
        name=place.relative_to(root).as_posix(),
        folder=place,
        status=status,
        error=error_of(place, status, result, record),
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else (),
        config={key: parse_value(x) for key, x in config.items() if not (isinstance(x, str) and "${" in x)},
        metrics=metrics_of(result or {}),
        result=result or {},
        plan=plan,
        program=program_of(plan),
    )


def read_curves(folder: Path, metric: str, points: int = POINTS) -> dict[str, Points]:
    """Training loss, validated metric and learning rate (the first group's) by update, as far as they were logged.

    A log of the same size is not read again.
    """
    logs = sorted(folder.glob("events.out.tfevents.*"))
    return _curves(folder, metric, points, tuple((path.name, path.lstat().st_size) for path in logs))


@cache
def _curves(folder: Path, metric: str, points: int, sizes: tuple[tuple[str, int], ...]) -> dict[str, Points]:
    watched = metric.replace("test/", "val/", 1)
    logged = scalars(folder, ("train/loss", watched, "lr/"))
    tags = {"loss": "train/loss", "metric": watched, "lr": next((tag for tag in logged if tag.startswith("lr/")), "")}
    return {name: few_points(tag, logged[tag], points) for name, tag in tags.items() if tag in logged}


def few_points(tag: str, series: Points, points: int = POINTS) -> Points:
    """At most so many points of a series: the means of equal parts for what training logs, else some with both ends."""
    if len(series) <= points:
        return series
    if not tag.startswith("train/"):
        return [series[round(i * (len(series) - 1) / (points - 1))] for i in range(points)]
    edges = [i * len(series) // points for i in range(points + 1)]
    parts = [series[a:b] for a, b in pairwise(edges)]
    return [(part[len(part) // 2][0], sum(value for _, value in part) / len(part)) for part in parts]
