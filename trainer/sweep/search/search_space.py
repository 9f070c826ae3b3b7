"""The space of a search: its parameters, when each of them exists, and how overrides describe them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

from trainer.lr import ConfigError

DECADE = 10.0
"""An interval of positive numbers whose ends differ by this factor or more is logarithmic, unless it says otherwise."""
TAGS = ("log", "linear")


class Draw(Protocol):
    """Draws a value, as a trial of Optuna does."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[str]) -> Any: ...


@dataclass(frozen=True)
class Condition:
    """The choice `key` has one of the values."""

    key: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.key}={','.join(self.values)}"

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Whether it holds for the values by key."""
        return chosen.get(self.key) in self.values


@dataclass(frozen=True)
class Parameter:
    """A key of the config and its values: `choices`, or the numbers from `low` to `high` (whole, or in steps)."""

    key: str
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    whole: bool = False
    log: bool = False
    choices: tuple[str, ...] = ()
    when: Condition | None = None

    @property
    def name(self) -> str:
        """Its name in the study: the key, and when it exists."""
        key = self.key.lstrip("+~")
        return f"{key} if {self.when}" if self.when else key

    def draw(self, trial: Draw) -> float | int | str:
        """A value for the trial; the same at each call."""
        if self.choices:
            return str(trial.suggest_categorical(self.name, self.choices))
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def at(self, share: float) -> float | int | str:
        """The value at a share in [0, 1) of the axis, logarithmic where the axis is."""
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        if self.whole or self.step:
            step = self.step or 1
            count = int((self.high - self.low) / step + 1e-9) + 1
            if self.log:
                low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
                return max(int(self.low), min(int(self.high), round(math.exp(low + share * (high - low)))))
            value = self.low + step * int(share * count)
            return int(value) if self.whole else value
        if self.log:
            return math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        return self.low + share * (self.high - self.low)

    def __str__(self) -> str:
        """The parameter in one line."""
        if self.choices:
            text = " | ".join(self.choices)
        else:
            kind = "whole numbers" if self.whole else "numbers"
            step = f" in steps of {self.step:g}" if self.step and self.step != 1 else ""
            text = f"{kind} from {self.low:g} to {self.high:g}{step}, {'logarithmic' if self.log else 'linear'}"
        return f"{self.name}: {text}"


@dataclass(frozen=True)
class Space:
    """All parameters of a search. A parameter with a condition precedes one with the same key and none."""

    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        free = {parameter.key: parameter for parameter in self.parameters if parameter.when is None}
        for one in self.parameters:
            _check(one, free)
        for number, one in enumerate(self.parameters):
            for other in self.parameters[:number]:
                if one.key == other.key and _overlap(one.when, other.when):
                    raise ConfigError(
                        f"{one.name} and {other.name} hold at the same time: keep one, or separate the conditions"
                    )

    def draw(self, trial: Draw) -> dict[str, float | int | str]:
        """A value for each parameter that exists, by its key with its prefix."""
        parents = {parameter.when.key for parameter in self.parameters if parameter.when}
        first = [one for one in self.parameters if one.when is None and one.key.lstrip("+") in parents]
        drawn = {one.key: one.draw(trial) for one in first}
        chosen = {key.lstrip("+"): value for key, value in drawn.items()}
        active = [one for one in self.parameters if one.when is not None and one.when.holds(chosen)]
        shadowed = {one.key for one in active} | set(drawn)
        free = [one for one in self.parameters if one.when is None and one.key not in shadowed]
        return drawn | {one.key: one.draw(trial) for one in (*free, *active)}


def _check(one: Parameter, free: Mapping[str, Parameter]) -> None:
    if one.choices:
        if len(set(one.choices)) < len(one.choices):
            raise ConfigError(f"{one.name} holds a value twice: {', '.join(one.choices)}: keep each once")
    elif not (math.isfinite(one.low) and math.isfinite(one.high) and one.low < one.high):
        raise ConfigError(
            f"{one.name}: from {one.low:g} to {one.high:g} is not an interval: give its lower and its upper end"
        )
    elif one.log and one.low <= 0:
        raise ConfigError(f"{one.name}: a logarithmic interval must begin above zero, not at {one.low:g}")
    if one.when is None:
        return
    parent = free.get(one.when.key) or free.get(f"+{one.when.key}")
    if parent is None or not parent.choices:
        raise ConfigError(
            f"{one.name}: {one.when.key} is not a choice of this search without a condition: add it to params"
        )
    if unknown := [value for value in one.when.values if value not in parent.choices]:
        raise ConfigError(
            f"{one.name}: {unknown[0]} is not among the choices of {parent.key}: {', '.join(parent.choices)}"
        )
    if one.key.lstrip("+") == one.when.key:
        raise ConfigError(f"{one.name}: a key cannot depend on itself")


def _overlap(one: Condition | None, other: Condition | None) -> bool:
    """Whether two conditions may hold at the same time: then the key would have two values."""
    if one is None or other is None:
        return one is other
    return one.key != other.key or bool(set(one.values) & set(other.values))


def parse_space(
    params: Mapping[str, Any], when: Mapping[str, Any], arguments: Sequence[str], parser: OverridesParser
) -> tuple[list[str], Space]:
    """The overrides that all trials share, and the space that is searched.

    Args:
        params: spaces by key; those of the command line, `arguments`, replace them.
        when: more spaces by key, for each condition KEY=VALUE[,VALUE …] on a choice.
        parser: reads overrides as Hydra does.
    """
    found: dict[str, Parameter | str] = {}
    for override in parser.parse_overrides([*(f"{key}={text}" for key, text in params.items()), *arguments]):
        key = override.get_key_element()
        found[key] = _parameter(override, None) if override.is_sweep_override() else str(override.input_line)
    fixed = [one for one in found.values() if isinstance(one, str)]
    parameters = [one for one in found.values() if isinstance(one, Parameter)]
    for condition, more in when.items():
        parameters += _conditional(str(condition), more, parser)
    if not parameters:
        raise ConfigError(
            "hydra/sweeper=search has nothing to search: give an interval, a range or a choice, "
            "as in optimizer.lr='interval(1e-4,1e-1)'"
        )
    return fixed, Space(tuple(parameters))


def _conditional(condition: str, more: Any, parser: OverridesParser) -> list[Parameter]:
    key, equals, values = condition.partition("=")
    if not (key and equals and values) or not isinstance(more, Mapping) or not more:
        raise ConfigError(
            f"hydra.sweeper.when: {condition}: {more} must be KEY=VALUE with the spaces that it adds, "
            "as in optimizer=sgd: {optimizer.momentum: interval(0.8,0.99)}"
        )
    holds = Condition(key, tuple(value.strip() for value in values.split(",")))
    return [_parameter(one, holds) for one in parser.parse_overrides([f"{name}={text}" for name, text in more.items()])]


def _parameter(override: Override, when: Condition | None) -> Parameter:
    key, value = override.get_key_element(), override.value()
    if not override.is_sweep_override():
        return Parameter(key, choices=(override.get_value_element_as_str(),), when=when)
    if isinstance(value, IntervalSweep):
        return _interval(override, value, when)
    if isinstance(value, Sweep) and value.tags:
        advice = "as in int(tag(log,interval(1,100)))"
        raise ConfigError(f"{override.input_line}: {', '.join(sorted(value.tags))} is for an interval, {advice}")
    if isinstance(value, RangeSweep):
        return _range(override, value, when)
    choices = tuple(override.sweep_string_iterator())
    if not choices:
        raise ConfigError(f"{override.input_line}: there is nothing to choose from")
    return Parameter(key, choices=choices, when=when)


def _interval(override: Override, value: IntervalSweep, when: Condition | None) -> Parameter:
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    if unknown := sorted(value.tags - set(TAGS)):
        raise ConfigError(f"{override.input_line}: the tag {unknown[0]} is not known: choose one of {', '.join(TAGS)}")
    log = "log" in value.tags or ("linear" not in value.tags and low > 0 and high / low >= DECADE)
    whole = isinstance(low, int) and isinstance(high, int)
    return Parameter(override.get_key_element(), float(low), float(high), whole=whole, log=log, when=when)


def _range(override: Override, value: RangeSweep, when: Condition | None) -> Parameter:
    numbers = sorted(value.range())
    if len(numbers) < 2:
        raise ConfigError(
            f"{override.input_line}: a range to search needs two values or more, and this has {len(numbers)}"
        )
    step = abs(float(value.step))
    whole = all(isinstance(number, int) for number in numbers)
    return Parameter(override.get_key_element(), float(numbers[0]), float(numbers[-1]), step, whole, when=when)
