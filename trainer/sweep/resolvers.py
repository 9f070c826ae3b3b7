"""Values at equal distances, for a sweep: `logspace(1e-4,1e-1,7)` and `linspace(0,0.3,4)` in an override.

The values are the floats nearest to the exact ones, so that `logspace(1e-4,1e-1,4)` holds exactly 0.001.
"""

from collections.abc import Callable
from decimal import Decimal, localcontext
from math import isfinite

from hydra.core.override_parser.types import ChoiceSweep

from trainer.cli.hydra_internals import add_override_functions
from trainer.lr import ConfigError

PLACES = 40
"""Decimal places of the calculation: far more than the 17 of a float."""
Number = int | float


def logspace(start: Number, stop: Number, num: int, digits: int = 0) -> list[Number]:
    """`num` values with equal ratios from `start` to `stop`, both included: start · (stop / start)^(k / (num - 1)).

    `digits`: how many significant digits are kept, 0 for all. Whole numbers stay whole where all values are.

    >>> logspace(1e-4, 1e-1, 7, digits=3)
    [0.0001, 0.000316, 0.001, 0.00316, 0.01, 0.0316, 0.1]
    >>> logspace(16, 256, 5)
    [16, 32, 64, 128, 256]
    """
    name = _check("logspace", start, stop, num, digits)
    if not (start > 0 and stop > 0):
        raise ConfigError(f"{name}: both ends of a logarithmic axis must be above zero; take linspace for others")
    first, last = _exact(start), _exact(stop)
    return _values(lambda share: first * (last / first) ** share, start, stop, num, digits)


def linspace(start: Number, stop: Number, num: int, digits: int = 0) -> list[Number]:
    """`num` values at equal distances from `start` to `stop`, both included; `digits` as in `logspace`.

    >>> linspace(0, 0.3, 4)
    [0.0, 0.1, 0.2, 0.3]
    """
    _check("linspace", start, stop, num, digits)
    first, last = _exact(start), _exact(stop)
    return _values(lambda share: first + (last - first) * share, start, stop, num, digits)


def register_spacings() -> None:
    """Add both to the functions of Hydra's overrides, as a choice between their values."""
    add_override_functions({"logspace": _choice_of(logspace), "linspace": _choice_of(linspace)})


def _choice_of(spacing: Callable[..., list[Number]]) -> Callable[..., ChoiceSweep]:
    def choice(start: int | float, stop: int | float, num: int, digits: int = 0) -> ChoiceSweep:
        return ChoiceSweep(list=list(spacing(start, stop, num, digits)))

    return choice


def _check(kind: str, start: Number, stop: Number, num: int, digits: int) -> str:
    name = f"{kind}({start},{stop},{num})"
    for value in (start, stop):
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ConfigError(f"{name}: {value} is not a finite number: give two ends, as in {kind}(0.001,0.1,5)")
    if isinstance(num, bool) or not isinstance(num, int) or num < 2:
        raise ConfigError(f"{name}: {num} values do not span the ends: give a whole number of at least 2")
    if isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits <= 17:
        raise ConfigError(f"{name}: digits={digits} must be a whole number from 0 (all) to 17")
    if start == stop:
        raise ConfigError(f"{name}: both ends are the same: give two different ones, or the one value")
    return name


def _exact(value: Number) -> Decimal:
    return Decimal(repr(value))


def _values(at: Callable[[Decimal], Decimal], start: Number, stop: Number, num: int, digits: int) -> list[Number]:
    with localcontext() as context:
        context.prec = PLACES
        inner = [at(Decimal(k) / (num - 1)) for k in range(1, num - 1)]
        exact = [_exact(start), *map(_near, inner), _exact(stop)]
    if digits:
        exact = [Decimal(f"{value:.{digits - 1}e}") for value in exact]
    if isinstance(start, int) and isinstance(stop, int) and all(value == int(value) for value in exact):
        values: list[Number] = [int(value) for value in exact]
    else:
        values = [float(value) for value in exact]
    if len(set(values)) < num:
        raise ConfigError(f"{num} values from {start} to {stop} with digits={digits} repeat some: keep more digits")
    return values


def _near(value: Decimal) -> Decimal:
    """The value rounded to fewer places, without the rounding errors of the last ones."""
    with localcontext() as context:
        context.prec = PLACES - 10
        return +value
