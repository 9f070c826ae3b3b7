"""Refuse, never repair: the one exception for a user's mistake, and the checks that raise it."""

import math


class Refusal(ValueError):
    """A user's mistake, told in one line: what, the value, why, what to do."""


def number(name: str, value: object, why: str, low: float = -math.inf, high: float = math.inf) -> float:
    """`value` as a float if it is a finite number in [low, high]; refused with `why` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Refusal(f"{name}={value!r} is not a finite number: {why}")
    if not low <= value <= high:
        raise Refusal(f"{name}={value!r} is out of range: {why}")
    return float(value)


def positive(name: str, value: object, why: str) -> float:
    """`value` as a float if it is a finite number above zero."""
    if number(name, value, why) <= 0:
        raise Refusal(f"{name}={value!r} must be above zero: {why}")
    return float(value)  # type: ignore[arg-type]


def fraction(name: str, value: object, why: str) -> float:
    """`value` as a float if it lies in [0, 1]."""
    return number(name, value, why, low=0.0, high=1.0)


def whole(name: str, value: object, why: str, low: int = 1) -> int:
    """`value` as an int if it is a whole number of at least `low`."""
    if number(name, value, why, low=low) != int(value):  # type: ignore[call-overload]
        raise Refusal(f"{name}={value!r} is not a whole number: {why}")
    return int(value)  # type: ignore[call-overload]
