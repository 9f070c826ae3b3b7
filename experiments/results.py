"""The results of an experiment's runs, read from their folders, and the functions that claims call."""

import fnmatch
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from trainer.log.scalars import scalars
from trainer.lr import ConfigError
from trainer.tools.report.comparison import repeats
from trainer.tools.report.runs import Run, find_runs

Curve = Sequence[tuple[int, float]]
"""Samples seen, and the loss over the whole training set."""
DIVERGED = "Diverged"
_KEY = r"\{([\w./@]+)\}"


@dataclass(frozen=True)
class Trial:
    """The results of a run. One that diverged has losses of inf and errors of 1.

    `x` is the value of the key that an arm tunes, None where it tunes nothing. `values`:

        train_loss                 mean over the whole training set at the end (no dropout, no augmentation)
        test_error, val_error      share of the set that is wrong
        updates, seconds           how many updates were applied, and how long the run took
        gain_least, gain_most, gain_first, gain_last    of AdaScale: extremes, means of the first and last 5 updates
        share_most, share_first    gain_most / S and gain_first / S
        updates_share              updates / T, with T the updates of the base batch
        updates_share_s            updates · S / T
    """

    arm: str
    seed: int
    x: float | None
    values: Mapping[str, float]
    curve: Curve = ()


@dataclass(frozen=True)
class Results:
    """The trials of an experiment, and the functions that claims may call.

    An arm that tunes a key is represented by its runs at the value of that key where `tuned_by`, or else `metric`, is
    lowest. `summary` says how the seeds of an arm are summed up: "mean" or "median".
    """

    trials: Sequence[Trial]
    metric: str = "train_loss"
    summary: str = "mean"
    tuned_by: str = ""
    arms: dict[str, dict[float | None, list[Trial]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arms.update({trial.arm: {} for trial in self.trials})
        for trial in sorted(self.trials, key=lambda one: (one.x is not None and one.x, one.seed)):
            same = self.arms[trial.arm].setdefault(trial.x, [])
            if trial.seed in [one.seed for one in same]:
                at = "" if trial.x is None else f" at {trial.x:g}"
                raise ConfigError(
                    f"arm {trial.arm!r} has seed {trial.seed} twice{at}: name in arm what tells its runs apart."
                )
            same.append(trial)

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        """What an expression may call: every value of a trial by its name, and the methods below."""
        names = {name for trial in self.trials for name in trial.values}
        asked = {name: lambda arm, at=None, name=name: self.value(name, arm, at) for name in names}
        return {
            **asked, "best": self.best, "largest": self.largest, "least": self.least, "most": self.most,
            "distance": self.distance, "curves_apart": self.curves_apart,
        }  # fmt: skip

    def value(self, name: str, arm: str, at: float | None = None) -> float:
        """A value of an arm, summed up over the seeds; NaN where it was not tried `at` that value of its key."""
        return self._summed(name, self.arm(arm).get(self.best(arm) if at is None else at, []))

    def best(self, arm: str) -> float | None:
        """The value of the tuned key at which the arm is best; None where it tunes none."""
        own, by = self.arm(arm), self.tuned_by or self.metric
        return min(own, key=lambda x: self._summed(by, own[x]))

    def largest(self, arm: str, below: float) -> float:
        """The largest value of the tuned key at which the metric is below a number; 0 where there is none."""
        own = self.arm(arm)
        return max((x for x in own if x is not None and self._summed(self.metric, own[x]) < below), default=0.0)

    def least(self, name: str, pattern: str) -> float:
        """The least value over all runs of the arms that fit, as `noisy adascale *`."""
        return min(self._each(name, pattern))

    def most(self, name: str, pattern: str) -> float:
        """The largest value over all runs of the arms that fit."""
        return max(self._each(name, pattern))

    def distance(self, arm: str, base: str) -> float:
        """The mean over seeds and measurements of |ln L - ln L_base|; inf where the same samples were not seen."""
        pairs = zip(self.runs(arm), self.runs(base), strict=True)
        return fmean(_distance(one.curve, other.curve) for one, other in pairs)

    def curves_apart(self, arm: str, base: str, *numbers: int) -> float:
        """The largest |L / L_base - 1| of the mean losses at these measurements, from 1 on; inf where one lacks."""
        own, other = (self._mean_curve(name) for name in (arm, base))
        pairs = [(own.get(i, math.inf), other.get(i, math.nan)) for i in numbers]
        return max(math.inf if math.isnan(b) else abs(a / b - 1) for a, b in pairs)

    def arm(self, name: str) -> dict[float | None, list[Trial]]:
        """The trials of an arm by the value of its key, in the order of the seeds."""
        if name not in self.arms:
            raise ConfigError(f"{name!r} is not an arm: the arms are {', '.join(self.arms)}.")
        return self.arms[name]

    def runs(self, name: str) -> list[Trial]:
        """The trials of an arm at its best."""
        return self.arm(name)[self.best(name)]

    def spread(self, name: str, arm: str, digits: int, unit: float = 1.0) -> str:
        """Mean ± standard deviation over the seeds, as text."""
        values = [unit * trial.values[name] for trial in self.runs(arm)]
        if not all(map(math.isfinite, values)):
            return "diverges"
        over_seeds = repeats(values)
        return f"{over_seeds.mean:.{digits}f}" + (
            f" ± {over_seeds.std:.{digits}f}" if over_seeds.std is not None else ""
        )

    def _summed(self, name: str, trials: Sequence[Trial]) -> float:
        values = [trial.values.get(name, math.nan) for trial in trials]
        if not values:
            return math.nan
        return median(values) if self.summary == "median" else sum(values) / len(values)

    def _each(self, name: str, pattern: str) -> list[float]:
        fitting = [arm for arm in self.arms if fnmatch.fnmatchcase(arm, pattern)]
        if not fitting:
            raise ConfigError(f"no arm fits {pattern!r}: the arms are {', '.join(self.arms)}.")
        return [trial.values[name] for arm in fitting for trial in self.runs(arm)]

    def _mean_curve(self, arm: str) -> dict[int, float]:
        curves = [trial.curve for trial in self.runs(arm)]
        shortest = min(map(len, curves))
        return {i + 1: fmean(curve[i][1] for curve in curves) for i in range(shortest)}


def trials_in(folder: Path, arm: str, tuned: str) -> list[Trial]:
    """The trials of one sweep. `arm` names them, with `{KEY}` for the value of an override or of a number of
    plan.json, as `{global_batch}`; `tuned` is a key or empty.

    Raises:
        RuntimeError: a run failed for another reason than that it diverged, or did not end.
    """
    return [trial_of(run, arm, tuned) for run in find_runs(folder)]


def trial_of(run: Run, arm: str, tuned: str) -> Trial:
    """The trial of one run."""
    diverged = run.status == "failed" and str(run.result.get("error", "")).startswith(DIVERGED)
    if run.status != "completed" and not diverged:
        raise RuntimeError(f"{run.folder}: {run.status}: {run.error}")
    words = {**run.plan, **run.settings}
    keys = re.findall(_KEY, arm)
    if missing := [key for key in keys if key not in words]:
        raise ConfigError(
            f"arm {arm!r}: {missing[0]} is no override of {run.folder} and not in its plan.json: name one, or two arms "
            "would be taken for the same."
        )
    name = re.sub(_KEY, lambda key: _shown(words[key[1]]), arm)
    x = run.settings.get(tuned) if tuned else None
    values = {"updates": float(run.result["updates"]), "seconds": float(run.result["seconds"])}
    return Trial(name, int(run.seed), x, {**_scores(run), **values, **_gains(run)}, _curve(run))


def _scores(run: Run) -> dict[str, float]:
    loss = run.value("test/train_loss")
    accuracies = {name: run.metrics.get(f"{name}/accuracy") for name in ("test", "val")}
    errors = {f"{name}_error": 1 - value for name, value in accuracies.items() if value is not None}
    if loss is None:
        return {"train_loss": math.inf, "test_error": 1.0, "val_error": 1.0}
    return {"train_loss": loss, **errors}


def _gains(run: Run) -> dict[str, float]:
    """The gains of a run with AdaScale; empty for other runs."""
    largest = run.plan.get("most_gain")
    if largest is None:
        return {}
    gains = [gain for _, gain in scalars(run.folder, ("adascale/gain",)).get("adascale/gain", [])]
    first, share = fmean(gains[:5]), run.result["updates"] / run.plan["total_updates"]
    return {
        "gain_least": min(gains), "gain_most": max(gains), "gain_first": first, "gain_last": fmean(gains[-5:]),
        "share_most": max(gains) / largest, "share_first": first / largest,
        "updates_share": share, "updates_share_s": share * largest,
    }  # fmt: skip


def _curve(run: Run) -> Curve:
    batch = run.plan.get("global_batch", 1)
    points = scalars(run.folder, ("train_set/loss",)).get("train_set/loss", [])
    return tuple(((t + 1) * batch, loss) for t, loss in points)


def _distance(curve: Curve, base: Curve) -> float:
    if [seen for seen, _ in curve] != [seen for seen, _ in base]:
        return math.inf
    return fmean(abs(math.log(loss / reference)) for (_, loss), (_, reference) in zip(curve, base))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
