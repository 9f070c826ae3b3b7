"""What a set of runs varies, the metric that judges them, and which runs differ in seed and fold only."""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from trainer.lr import ConfigError
from trainer.tools.report.comparable import comparable
from trainer.tools.report.comparison import Repeats, by_repeat, grouped, repeats
from trainer.tools.report.runs import FOLD, Run
from trainer.tools.run_folders import (
    direction,
    is_bookkeeping,
    is_number,
    starting_command,
    value_order,
    with_changes,
)

DEFAULT = "(default)"
BATCH = "global batch"
RESUMED = "resumed"
"""What stands for a key where a resume has changed a run: how, and at which updates."""
BATCH_FACTORS = ("data.batch_size", "trainer.devices", "trainer.nodes", "trainer.accumulate")
"""The global batch is their product. Processes that torchrun or Slurm has started are no number in a config."""
REPEATED = {"seed": "seeds", FOLD: "folds"}
"""The keys in which runs of one configuration differ, with the words for their values."""

Values = tuple[tuple[str, Any], ...]
"""Keys with their values."""


class NoResults(ConfigError):
    """No run has a result yet that can be judged."""


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in seed and fold only: their values of what varies, and the metric over them."""

    values: Values
    runs: tuple[Run, ...]
    repeats: Repeats


class Study:
    """Runs, what they vary, and a metric to judge them by. The *cost* of a run is its metric times `sign`.

        described   the runs whose settings are known
        scored      those of them that have the metric; `left_out` are all others
        varied      the keys whose values differ between runs, `settings` without seed and fold
        repeated    the word for what repeats a configuration: seeds, folds, or both
        labels      a short name for each of them: the last part of the key, unless two keys share it
        choices     the settings whose values are words: a schedule, a warm-up, an optimizer, …
        lr          the key of the learning rate, where it varies and is above zero

    Raises:
        ConfigError: no run has the metric, or nothing says whether more of it is better.
    """

    def __init__(self, runs: Sequence[Run], metric: str | None = None, best: str | None = None) -> None:
        self.runs = list(runs)
        self.metric = choose_metric(self.runs, metric)
        self.sign = {"min": 1, "max": -1}[best or direction(self.metric, self.runs)]
        self.apart = comparable(self.runs, self.metric)[1]
        self.described = [run for run in self.runs if (run.config or run.overrides) and run.number not in self.apart]
        self.described = self.described or self.runs
        self.scored = [run for run in self.described if run.value(self.metric) is not None]
        scored = {run.number for run in self.scored}
        self.left_out = [run for run in self.runs if run.number not in scored]
        if not self.scored:
            raise NoResults(f"no completed run has a finite {self.metric}: give another metric by --metric.")
        self.varied = self._varied()
        self.settings = [key for key in self.varied if key not in REPEATED]
        self.repeated = " and ".join(word for key, word in REPEATED.items() if key in self.varied) or "seeds"
        ends = Counter(key.rpartition(".")[2] for key in self.varied)
        self.labels = {key: end if ends[end := key.rpartition(".")[2]] == 1 else key for key in self.varied}
        self.choices = [key for key in self.settings if not self.is_numeric(key)]
        numbers = [key for key in self.varied if self.is_numeric(key) and self.levels(key, self.scored)[0] > 0]
        rates = [key for key in numbers if key.rpartition(".")[2] == "lr" or key.endswith("_lr")]
        self.lr = "optimizer.lr" if "optimizer.lr" in rates else next(iter(rates), None)

    def cost(self, run: Run) -> float:
        """The cost of a run that has the metric: less is better."""
        return self.sign * run.metrics[self.metric]  # type: ignore[operator]

    def costs(self, runs: Iterable[Run], keys: Sequence[str]) -> dict[Values, dict[Hashable, float]]:
        """The costs by the values of the keys, then by seed and fold."""
        groups = grouped((self.values(run, keys), (run.repeat, self.cost(run))) for run in runs)
        return {values: by_repeat(pairs) for values, pairs in groups.items()}

    def best_mean(self, means: Iterable[tuple[float, Repeats]]) -> tuple[float, Repeats]:
        """The number with the best mean."""
        return min(means, key=lambda pair: self.sign * pair[1].mean)

    def why_left_out(self, run: Run) -> str:
        """Why a run is left out."""
        if run.number in self.apart:
            return self.apart[run.number]
        if run.status != "completed":
            return run.status
        if run.value(self.metric) is None:
            return f"{self.metric} is not finite" if self.metric in run.metrics else f"no {self.metric}"
        return "neither config.yaml nor overrides.yaml"

    def _varied(self) -> list[str]:
        """The keys that differ: those of the overrides, then those of the configs that the overrides do not explain.

        Last the global batch, where the environment decided it, as with trainer=torchrun.
        """
        asked = list(dict.fromkeys(key for run in self.described for key in run.settings))
        keys = [key for key in asked if len({self.value(run, key) for run in self.described}) > 1]
        alike = grouped((self.values(run, keys), run) for run in self.described if run.config)
        more = {key for runs in alike.values() for key in _differing_keys(runs)}
        keys += sorted(more - set(keys))
        planned = [(run, batch) for run in self.described if (batch := planned_batch(run)) is not None]
        batches = grouped((self.values(run, keys), batch) for run, batch in planned)
        keys += [RESUMED] if any(run.changes for run in self.described) else []
        return [*keys, BATCH] if any(len(set(found)) > 1 for found in batches.values()) else keys

    @cached_property
    def batches(self) -> dict[int, float]:
        """The global batch by the number of the run, where it is known.

        A run that failed before it had a plan has that of a run with the same factors, or else in proportion to them.
        """
        factors = [key for key in BATCH_FACTORS if key in self.varied]
        known = {run.number: batch for run in self.described if (batch := planned_batch(run)) is not None}
        values = {run.number: [self.value(run, key) for key in factors] for run in self.described}
        alike = grouped((tuple(values[number]), batch) for number, batch in known.items())
        ratios = {batch / size for number, batch in known.items() if (size := _product(values[number]))} or {1.0}
        for number in [run.number for run in self.described if run.number not in known and factors]:
            same, size = set(alike.get(tuple(values[number]), ())), _product(values[number])
            if len(same) == 1:
                known[number] = next(iter(same))
            elif not same and size and len(ratios) == 1:
                known[number] = size * next(iter(ratios))
        return known

    def value(self, run: Run, key: str) -> Any:
        """The value of a key: from the config of the run, or else its override; the global batch from its plan."""
        if key == BATCH:
            return planned_batch(run) or DEFAULT
        if key == RESUMED:
            return ", ".join(run.changes) or "no"
        value = run.config.get(key)
        if value is None or isinstance(value, dict):
            value = run.settings.get(key, DEFAULT if key not in run.config else value)
        return json.dumps(value) if isinstance(value, list | dict) else value

    def values(self, run: Run, keys: Iterable[str]) -> Values:
        """The values of several keys, to group by."""
        return tuple((key, self.value(run, key)) for key in keys)

    def levels(self, key: str, runs: Sequence[Run] | None = None) -> list[Any]:
        """The values of a key in order."""
        if runs is None:  # of a run that failed before it had a config, only its overrides are known
            runs = [*self.scored, *(run for run in self.described if run.config or key in run.settings)]
        return sorted({self.value(run, key) for run in runs}, key=value_order)

    def is_numeric(self, key: str) -> bool:
        """Whether a key varies and is a number in every run that has the metric."""
        return key in self.varied and all(is_number(value) for value in self.levels(key, self.scored))

    @cached_property
    def configurations(self) -> list[Configuration]:
        """The configurations, the best first; those with fewer repeats than the most come after all others."""
        groups = grouped((self.values(run, self.settings), run) for run in self.scored)
        found = [
            Configuration(values, tuple(groups[values]), repeats([self.sign * cost for cost in costs.values()]))
            for values, costs in self.costs(self.scored, self.settings).items()
        ]
        most = max(one.repeats.n for one in found)
        return sorted(found, key=lambda one: (one.repeats.n < most, self.sign * one.repeats.mean))

    def format_values(self, values: Iterable[tuple[str, Any]]) -> str:
        """Values for a reader: `lr 0.1, schedule cosine`."""
        return ", ".join(f"{self.labels.get(key, key)} {format_value(value)}" for key, value in values)


def choose_metric(runs: Sequence[Run], asked: str | None) -> str:
    """The metric asked for, or the one by which most runs chose their best checkpoint."""
    completed = [run for run in runs if run.status == "completed"]
    known = Counter(metric for run in completed for metric in run.metrics)
    if not known:
        states = ", ".join(f"{count} {status}" for status, count in Counter(run.status for run in runs).items())
        raise NoResults(f"none of {len(runs)} runs has a result with metrics ({states}): wait for one to complete.")
    if asked is not None:
        if asked not in known:
            raise ConfigError(f"--metric={asked} is in no result: choose one of {', '.join(sorted(known))}.")
        return asked
    bests = [best for run in completed if isinstance(best := run.result.get("best"), dict)]
    judges = Counter(name for best in bests if (name := str(best.get("metric"))) in known)
    return max(judges or known, key=(judges or known).__getitem__)


def planned_batch(run: Run) -> float | None:
    """The global batch in the plan of the run; of a batch that grows, the first."""
    batch = run.plan.get("global_batch")
    return float(batch) if is_number(batch) and 0 < batch < float("inf") else None  # type: ignore[operator, arg-type]


def format_value(value: Any) -> str:
    """A value for a reader."""
    return "null" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def format_command(run: Run, *flags: str, overrides: Iterable[str] | None = None) -> str:
    """The command that starts a run again, to paste: without its name and place, and with other overrides if given.

    For a run that a resume has changed, the line says so: one command does not give it.
    """
    given = run.overrides if overrides is None else overrides
    command = starting_command(run.program, given, flags)
    return with_changes(command, () if overrides is not None else run.changes)


def _product(values: Sequence[Any]) -> float:
    """Zero where one of them is no number above zero."""
    return float(prod(values)) if all(is_number(value) and value > 0 for value in values) else 0.0


def _differing_keys(runs: Sequence[Run]) -> set[str]:
    keys = {key for run in runs for key in run.config}
    rows = {key: {json.dumps(run.config.get(key)) for run in runs} for key in keys}
    hidden = ("_target_", "_partial_")
    return {
        key for key, values in rows.items() if len(values) > 1 and not is_bookkeeping(key) and not key.endswith(hidden)
    }
