"""The runs below a folder, wherever they were made: settings, how they ended, what they reached, their curves."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from trainer.cli.command import COMMAND
from trainer.cli.plain_yaml import check_yaml
from trainer.files.plain import check_regular, read_text
from trainer.log.scalars import Points, scalars
from trainer.lr import ConfigError
from trainer.resume.changes import flat
from trainer.tools.report.comparison import is_number

RESULT, CONFIG, SWEEP = "result.json", "config.yaml", "sweep.json"
DECIDED = ("failed", "interrupted", "pruned")
"""Where the record of a sweep says one of these, it counts more than the result: a job may fail after writing one."""
FOLD = "data.fold"
"""The key of the part of the training data that validates, in k-fold cross-validation."""
POINTS = 160
"""The most points of one curve of one run."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
        """How resumes have changed the curve: the policy and the update of each."""
        found = self.plan.get("changes")
        known = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        return tuple(f"{one.get('policy')} at update {one.get('update')}" for one in known)

    @cached_property
    def typed(self) -> dict[str, str | None]:
        """The values of the overrides by key, as typed: None for a key that is removed."""
        pairs = (override.partition("=") for override in self.overrides)
        return {key.lstrip("+~"): value if equals else None for key, equals, value in pairs}

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


def is_bookkeeping(key: str) -> bool:
    """Whether a key only names a run or its place, or says how it is resumed or what may resume from it."""
    if key in ("name", "trainer.snapshots"):
        return True
    return key.split(".")[0] in ("resume", "hydra") or key.startswith(("hydra/", "resume@"))


def find_runs(root: Path) -> list[Run]:
    """Every run below `root`, in the order of the jobs. A folder that was moved is read as the original.

    Raises:
        ConfigError: `root` is no folder, or holds no run.
    """
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder: give that of a run, a sweep or a search, as outputs/NAME.")
    records: dict[Path, dict[str, Any]] = {}
    places: set[Path] = set()
    for name, below, files in os.walk(root):
        below[:] = [folder for folder in below if folder != "checkpoints"]
        if RESULT in files or CONFIG in files:
            places.add(Path(name))
        if SWEEP in files:
            records |= dict(_jobs(Path(name)))

    def order(place: Path) -> list[tuple[int, int, str]]:
        return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in place.relative_to(root).parts]

    everything = sorted(places | records.keys(), key=order)
    if not everything:
        raise ConfigError(f"{root} holds no run: there is no {RESULT} and no {CONFIG} in it or below.")
    runs = [_run(i, place, root, records.get(place, {})) for i, place in enumerate(everything)]
    programs = {run.program for run in runs if run.plan}
    shared = programs.pop() if len(programs) == 1 else COMMAND
    return [run if run.plan else replace(run, program=shared) for run in runs]  # some failed before they had a plan


def parse_value(text: Any) -> Any:
    """A value as YAML and Hydra read it, as far as it is a finite number, true, false or null."""
    if isinstance(text, float) and not math.isfinite(text):
        return str(text)
    if not isinstance(text, str):
        return text
    for kind in (int, float):
        try:
            return read if math.isfinite(read := kind(text)) else text
        except (ValueError, OverflowError):
            pass
    return {"true": True, "false": False, "null": None}.get(text.lower(), text.strip("'\""))


def _jobs(place: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The jobs that `sweep.json` records, each with the folder that it has here."""
    jobs = (_read(place / SWEEP) or {}).get("jobs")
    for job in jobs if isinstance(jobs, list) else []:
        if isinstance(job, dict) and (parts := [p for p in Path(str(job.get("folder", ""))).parts[1:] if p != ".."]):
            tails = (place.joinpath(*parts[i:]) for i in range(len(parts)))
            yield next((tail for tail in tails if tail.is_dir()), place / parts[-1]), job


def _run(i: int, place: Path, root: Path, record: dict[str, Any]) -> Run:
    result = _read(place / RESULT)
    unreadable = result is None and (place / RESULT).exists()
    result = result or {}
    status = str(record["status"]) if record.get("status") in DECIDED else str(result.get("status", "unfinished"))
    values = result["metrics"].items() if isinstance(result.get("metrics"), dict) else ()
    config = flat(_read(place / CONFIG) or {})
    error = str(record.get("error") or result.get("error") or "")
    if not error and status != "completed":
        error = f"{RESULT} cannot be read: half-written?" if unreadable else _last_line(place)
    overrides = _read(place / "overrides.yaml", list) or record.get("overrides")
    plan = _read(place / "plan.json") or {}
    return Run(
        number=i,
        name=place.relative_to(root).as_posix(),
        folder=place,
        status=status if status in ("completed", *DECIDED) else "unfinished",
        error=" ".join(error.split())[:500],
        overrides=tuple(map(str, overrides)) if isinstance(overrides, list) else (),
        config={key: parse_value(x) for key, x in config.items() if not (isinstance(x, str) and "${" in x)},
        metrics={str(key): float(x) if is_number(x) and math.isfinite(x) else None for key, x in values},
        result=result,
        plan=plan,
        program=_program(plan.get("program")),
    )


def _program(words: Any) -> tuple[str, ...]:
    """The words that start a run, if the plan has some: a person pastes them, so other programs are left out."""
    program = tuple(map(str, words)) if words and isinstance(words, list) else COMMAND
    ours = program[:2] == COMMAND or (program[0] == "python" and len(program) > 1 and program[1] not in ("-", "-c"))
    return program if ours else COMMAND


def _read(path: Path, kind: type = dict) -> Any:
    """What a file of JSON or YAML holds; None where it is not there, cannot be read or is of another kind."""
    try:
        text = read_text(path)
        if path.suffix != ".json":
            check_yaml(text, str(path))
        tree = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return tree if isinstance(tree, kind) else None


def _last_line(place: Path) -> str:
    try:
        check_regular(place / "job.log")
        with (place / "job.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return f"no {RESULT}"
    return next((line.strip() for line in reversed(lines) if line.strip()), f"no {RESULT}")


def read_curves(folder: Path, metric: str, points: int = POINTS) -> dict[str, Points]:
    """Training loss, validated metric and learning rate (the first group's) by update, as far as they were logged."""
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
