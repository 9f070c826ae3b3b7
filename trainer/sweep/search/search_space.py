"""From overrides to the space of a search: `interval`, `range`, `choice` and lists, and when each of them exists."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

from trainer.lr import ConfigError
from trainer.sweep.search.space import DECADE, Condition, Parameter, Space

TAGS = ("log", "linear")


def space(
    params: Mapping[str, Any], when: Mapping[str, Any], arguments: Sequence[str], parser: OverridesParser
) -> tuple[list[str], Space]:
    """The overrides that all trials share, and what is searched.

    `params`: spaces by key, which `arguments`, the command line, precede. `when`: more spaces by key for each
    condition KEY=VALUE[,VALUE …] on a choice.
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
        raise ConfigError(f"{override.input_line}: a range to search holds two values or more, and this {len(numbers)}")
    step = abs(float(value.step))
    whole = all(isinstance(number, int) for number in numbers)
    return Parameter(override.get_key_element(), float(numbers[0]), float(numbers[-1]), step, whole, when=when)
