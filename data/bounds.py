"""Checks on the arguments of a data set. Standard library only."""

from pathlib import Path


def integer(name: str, value: object, low: int = 1) -> int:
    """`value` if it is an integer of at least `low`; ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name}={value!r} must be a whole number of at least {low}.")
    return value


def share(name: str, value: object) -> float:
    """`value` as a float if it lies in [0, 1); ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r} must be a share of the data: at least 0 and below 1.")
    return float(value)


def existing(name: str, path: str, what: str) -> Path:
    """`path` with `~` expanded if it is a file; FileNotFoundError otherwise."""
    found = Path(path).expanduser()
    if not found.is_file():
        raise FileNotFoundError(f"{name}={path} is not a file: set {name} to {what}.")
    return found
