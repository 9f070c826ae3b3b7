"""The error for a user's mistake, and the checks of single values that raise it."""

import math

LARGEST = 3.4e38
"""About the largest number that a float32 can hold."""


class ConfigError(ValueError):
    """A user's mistake, in one line: what, the value, why, what to do."""


def number(name: str, value: object, why: str, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float; `ConfigError` with `why` unless it is in [low, high] and finite as a float32."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ConfigError(f"{name}={value!r} is not a finite number: {why}")
    if not low <= value <= high:
        raise ConfigError(f"{name}={value!r} is out of range: {why}")
    return float(value)


def positive(name: str, value: object, why: str) -> float:
    """`value` as a float if it is a finite number above zero."""
    if number(name, value, why) <= 0:
        raise ConfigError(f"{name}={value!r} must be above zero: {why}")
    return float(value)  # type: ignore[arg-type]


def fraction(name: str, value: object, why: str) -> float:
    """`value` as a float if it lies in [0, 1]."""
    return number(name, value, why, low=0.0, high=1.0)


def positive_share(name: str, value: object, why: str) -> float:
    """`value` as a float if it is above 0 and at most 1: a factor that cannot raise the learning rate."""
    if positive(name, value, why) > 1:
        raise ConfigError(f"{name}={value!r} would raise the learning rate: give a value up to 1.")
    return float(value)  # type: ignore[arg-type]


def integer(name: str, value: object, why: str, low: int = 1, high: float = math.inf) -> int:
    """`value` if it is an int in [low, high]."""
    number(name, value, why, low, high)
    if not isinstance(value, int):
        raise ConfigError(f"{name}={value!r} is not a whole number: {why}")
    return value
