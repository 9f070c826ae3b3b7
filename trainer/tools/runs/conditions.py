"""Which runs to list, and in which order: conditions such as `optimizer.lr>0.01`, and the values that they compare."""

import difflib
import json
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from trainer.lr import ConfigError
from trainer.tools.run_folders import direction, is_number, parse_value, value_order
from trainer.tools.runs.listed import ListedRun

TIME = "written"
"""The column that is compared as text: 2026-11-30 is before 2026-11-30T03:04:05Z."""
MISSING = object()
"""The value of a key that a run does not have."""
COLUMNS: dict[str, Callable[[ListedRun], Any]] = {
    "run": lambda run: run.name,
    "state": lambda run: run.state,
    "error": lambda run: run.error,
    "updates": lambda run: run.updates,
    "total_updates": lambda run: run.total,
    "seconds": lambda run: run.seconds,
    "bytes": lambda run: run.size,
    TIME: lambda run: run.written,
}
"""What a list says of every run."""
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|==|=|<|>)\s*(.*\S)\s*", re.DOTALL)


class Condition(NamedTuple):
    """`key` compared with `value` by `sign`: = and != compare any values, the others numbers and times."""

    key: str
    sign: str
    value: Any

    def holds(self, run: ListedRun) -> bool:
        """Whether it holds for a run; it does not where the run has no such key."""
        found = value_of(run, self.key)
        if found is MISSING:
            return False
        if self.sign in ORDER:
            alike = is_number(found) == is_number(self.value) and (is_number(found) or self.key == TIME)
            return alike and ORDER[self.sign](found, self.value)
        return _same(found, self.value) == (self.sign != "!=")


def read_condition(text: str) -> Condition:
    """A condition as typed.

    Raises:
        ConfigError: it is none.

    >>> read_condition("optimizer.lr>=0.01")
    Condition(key='optimizer.lr', sign='>=', value=0.01)
    """
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise ConfigError(
            f"--where={text!r} is not a condition: write a key, one of = != < <= > >=, and a value, as "
            "'optimizer.lr>0.01'."
        )
    key, sign = found[1], found[2]
    value = found[3] if key == TIME else parse_value(found[3])
    if sign in ORDER and not is_number(value) and key != TIME:
        raise ConfigError(f"--where={text!r} compares with {found[3]!r}, which is no number: take = or !=.")
    return Condition(key, sign, value)


def value_of(run: ListedRun, key: str) -> Any:
    """The value of a key for a run: a column of the list, a metric, an override or a key of the config.

    A group has the option that was typed, or else the name of its curve in the plan. `MISSING` where it has no value.
    """
    if key in COLUMNS:
        value = COLUMNS[key](run)
        return MISSING if value is None else value
    if key in run.scores:
        value = run.scores[key]
        return MISSING if value is None else value
    if "." not in key and run.typed.get(key) is not None:
        return parse_value(run.typed[key])
    if (found := run.setting(key, MISSING)) is not MISSING:
        return found
    if key in run.typed:
        return parse_value(run.typed[key])
    curve = run.plan.get("curve")
    return curve[key] if isinstance(curve, dict) and isinstance(curve.get(key), str) else MISSING


def check_known(keys: Sequence[str], option: str, runs: Sequence[ListedRun]) -> None:
    """Refuse a key that none of the runs has.

    Raises:
        ConfigError: with the nearest key that there is.
    """
    for key in keys:
        if not runs or key in COLUMNS or any(value_of(run, key) is not MISSING for run in runs):
            continue
        known = dict.fromkeys([*COLUMNS, *(name for run in runs[:50] for name in (*run.scores, *run.config))])
        end = re.split("[./]", key)[-1]
        same_end = [name for name in known if re.split("[./]", name)[-1] == end]
        near = same_end[:2] or difflib.get_close_matches(key, known, n=1)
        meant = (
            f"did you mean {' or '.join(near)}?" if near else f"give one of {', '.join(COLUMNS)}, a metric or a key."
        )
        raise ConfigError(f"{option}: none of {len(runs)} runs has a value of {key}: {meant}")


def sorted_by(key: str, runs: Sequence[ListedRun], reverse: bool = False) -> list[ListedRun]:
    """The runs by the value of a key, the least first; those without it come last in either order."""
    valued = [(value, run) for run in runs if (value := value_of(run, key)) is not MISSING]
    having = {id(run) for _, run in valued}
    ordered = sorted(valued, key=lambda pair: value_order(_plain(pair[0])), reverse=reverse)
    return [*(run for _, run in ordered), *(run for run in runs if id(run) not in having)]


def best_first(metric: str, runs: Sequence[ListedRun], mode: str | None = None) -> list[ListedRun]:
    """The completed runs that have a metric, the best first; `mode` is min or max, None: as the metric is known.

    Raises:
        ConfigError: no completed run has it, or nothing says whether more of it is better.
    """
    having = [run for run in runs if run.state == "completed" and run.scores.get(metric) is not None]
    if runs and not having:
        check_known([metric], "--best", runs)
        raise ConfigError(f"--best={metric}: none of {len(runs)} runs is completed and has it: wait for one.")
    better = mode or (direction(metric, having, "--mode") if having else "min")
    return sorted_by(metric, having, reverse=better == "max")


def _plain(value: Any) -> Any:
    return value if is_number(value) else as_text(value)


def _same(found: Any, value: Any) -> bool:
    if is_number(found) and is_number(value):
        return bool(found == value)
    return as_text(found) == as_text(value)


def as_text(value: Any) -> str:
    """A value as it is typed: [32,16], true, null."""
    if isinstance(value, str):
        return value.replace(", ", ",")
    try:
        return json.dumps(value, separators=(",", ":"), default=str).replace('"', "")
    except (TypeError, ValueError, RecursionError):
        return f"a {type(value).__name__} that is nested too deeply"
