"""What a set of runs varies, by what it is judged, and which of its runs are the same but for the seed."""

import json
import shlex
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from trainer.lr import ConfigError
from trainer.tools.report.batches import BATCH, batches, planned
from trainer.tools.report.edge import geometric
from trainer.tools.report.metric import chosen, direction
from trainer.tools.report.repeats import Repeats, by_seed, repeats
from trainer.tools.report.runs import Run, own

DEFAULT = "(default)"


@dataclass(frozen=True)
class Cell:
    """Runs that are the same but for the seed: the values of what varies, and those runs that have the metric."""

    values: tuple[tuple[str, Any], ...]
    runs: tuple[Run, ...]
    metric: str

    @property
    def repeats(self) -> Repeats:
        """Mean and spread over the seeds."""
        pairs = [(run.seed, value) for run in self.runs if (value := run.value(self.metric)) is not None]
        return repeats(list(by_seed(pairs).values()))


class Study:
    """Runs, what they vary, and a metric to judge them by; `cost` is the metric turned so that less is better.

    Raises:
        ConfigError: no run has the metric, or nothing says whether more of it is better.
    """

    def __init__(self, runs: Sequence[Run], metric: str | None = None, best: str | None = None) -> None:
        self.runs = list(runs)
        self.metric = chosen(self.runs, metric)
        self.sign = {"min": 1, "max": -1}[best or direction(self.metric, self.runs)]
        self.told = [run for run in self.runs if run.config or run.words] or self.runs
        self.good = [run for run in self.told if run.value(self.metric) is not None]
        if not self.good:
            raise ConfigError(f"no completed run has a finite {self.metric}: give another metric by --metric.")

    def cost(self, run: Run) -> float:
        """The metric of a run that has it, turned so that less is better."""
        value = run.value(self.metric)
        assert value is not None
        return self.sign * value

    def costs(self, runs: Iterable[Run]) -> list[float]:
        """The cost under each seed of runs that are the same but for it."""
        return list(by_seed((run.seed, self.cost(run)) for run in runs).values())

    @cached_property
    def left_out(self) -> list[Run]:
        """The runs without a value to judge by."""
        scored = {run.number for run in self.good}
        return [run for run in self.runs if run.number not in scored]

    def why(self, run: Run) -> str:
        """Why a run is left out."""
        known = run.value(self.metric) is None
        return run.why(self.metric) if known else "neither config.yaml nor overrides.yaml"

    @cached_property
    def varied(self) -> list[str]:
        """The keys that differ: those of the overrides, then those of the configs that they do not explain.

        Last the global batch, where the environment decided it, as with trainer=torchrun.
        """
        asked = list(dict.fromkeys(key for run in self.told for key in run.overrides))
        keys = [key for key in asked if len({self.value(run, key) for run in self.told}) > 1]
        alike: dict[Hashable, list[Run]] = {}
        for run in self.told:
            if run.config:
                alike.setdefault(self.at(run, keys), []).append(run)
        more = {key for group in alike.values() for key in _differing(group)}
        keys += sorted(more - set(keys))
        planned_by: dict[Hashable, set[float]] = {}
        for run in self.told:
            if (batch := planned(run)) is not None:
                planned_by.setdefault(self.at(run, keys), set()).add(batch)
        return [*keys, BATCH] if any(len(found) > 1 for found in planned_by.values()) else keys

    @cached_property
    def batches(self) -> dict[int, float]:
        """The global batch by the number of the run, where it is known."""
        return batches(self.told, self.varied, self.value)

    def value(self, run: Run, key: str) -> Any:
        """What a run has for a key: from its config, or the word of its override; the global batch from its plan."""
        if key == BATCH:
            return planned(run) or DEFAULT
        found = run.config.get(key)
        if found is None or isinstance(found, dict):
            found = run.overrides.get(key, DEFAULT if key not in run.config else found)
        return json.dumps(found) if isinstance(found, list | dict) else found

    def at(self, run: Run, keys: Iterable[str]) -> tuple[tuple[str, Any], ...]:
        """The values of several keys, to group by."""
        return tuple((key, self.value(run, key)) for key in keys)

    @cached_property
    def labels(self) -> dict[str, str]:
        """A short name for each key that varies: its last part, where that is the only one."""
        ends = Counter(key.rpartition(".")[2] for key in self.varied)
        return {key: end if ends[end := key.rpartition(".")[2]] == 1 else key for key in self.varied}

    def levels(self, key: str, runs: Sequence[Run] | None = None) -> list[Any]:
        """The values of a key in order."""
        if runs is None:  # of a run that failed before it had a config, only its overrides are known
            scored = {run.number for run in self.good}
            runs = [run for run in self.told if run.config or key in run.overrides or run.number in scored]
        found = {self.value(run, key) for run in runs}
        return sorted(found, key=lambda v: (not numeric(v), v if numeric(v) else 0, str(v)))

    def numeric(self, key: str) -> bool:
        """Whether a key varies and is a number in every run that has the metric."""
        return key in self.varied and all(numeric(value) for value in self.levels(key, self.good))

    def log(self, key: str) -> bool:
        """Whether a key is better seen on a log axis."""
        return key == self.lr or geometric([float(value) for value in self.levels(key, self.good)])

    @cached_property
    def lr(self) -> str | None:
        """The key of the learning rate, where it varies and is above zero."""
        names = [key for key in self.varied if self.numeric(key) and self.levels(key, self.good)[0] > 0]
        rates = [key for key in names if key.rpartition(".")[2] == "lr" or key.endswith("_lr")]
        return "optimizer.lr" if "optimizer.lr" in rates else next(iter(rates), None)

    @cached_property
    def seed(self) -> str | None:
        """The key of the seed, where it varies."""
        return "seed" if "seed" in self.varied else None

    @cached_property
    def settings(self) -> list[str]:
        """What varies but the seed."""
        return [key for key in self.varied if key != self.seed]

    def first(self, *names: str) -> str | None:
        """The first of several keys that varies and is a number."""
        return next((name for name in names if self.numeric(name)), None)

    @cached_property
    def choices(self) -> list[str]:
        """The keys that vary between words: a schedule, a warm-up, an optimizer, …"""
        return [key for key in self.settings if not self.numeric(key)]

    @cached_property
    def cells(self) -> list[Cell]:
        """The configurations, the best first; those under fewer seeds than the most come after all that have them."""
        groups: dict[Hashable, list[Run]] = {}
        for run in self.good:
            groups.setdefault(self.at(run, self.settings), []).append(run)
        cells = [Cell(self.at(runs[0], self.settings), tuple(runs), self.metric) for runs in groups.values()]
        most = max(cell.repeats.n for cell in cells)
        return sorted(cells, key=lambda cell: (cell.repeats.n < most, self.sign * cell.repeats.mean))

    def name(self, values: Iterable[tuple[str, Any]]) -> str:
        """Values for a reader: `lr 0.1, schedule cosine`."""
        return ", ".join(f"{self.labels.get(key, key)} {shown(value)}" for key, value in values)


def numeric(value: Any) -> bool:
    """Whether a value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value for a reader."""
    return "null" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def command(words: Iterable[str], script: str = "train.py", *more: str) -> str:
    """Overrides as a command to paste, without the name and place of the run that they are from."""
    kept = [word for word in words if not own(word.partition("=")[0].lstrip("+~"))]
    return shlex.join(["python", script, *more, *kept])


def _differing(runs: Sequence[Run]) -> set[str]:
    keys = {key for run in runs for key in run.config}
    rows = {key: {json.dumps(run.config.get(key)) for run in runs} for key in keys}
    hidden = ("_target_", "_partial_")
    return {key for key, values in rows.items() if len(values) > 1 and not own(key) and not key.endswith(hidden)}
