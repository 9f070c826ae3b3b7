"""The numbers that can be tuned, each on a lattice of four points a decade."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainer.lr.bounds import ConfigError

PER_DECADE = 4
"""Points of the lattice in a decade: a step of 1 is a quarter of a decade."""


@dataclass(frozen=True)
class Axis:
    """A number: its name, its key in the config, and the lowest and highest point of its lattice.

    Point p stands for 10^(p/4) on the scale of the axis; `value` and `scaled` lead from the scale to the number and
    back. `fallback` is where a search starts if the config has 0 or null. `template` writes the value of the override,
    and `unit` stands behind the number where it is shown.
    """

    name: str
    key: str
    bounds: tuple[int, int]
    fallback: float
    value: Callable[[float], float] = float
    scaled: Callable[[float], float] = float
    template: str = "{:.4g}"
    unit: str = ""

    def at(self, place: float) -> float:
        """The number at a place of the lattice, with four digits.

        >>> [AXES["lr"].at(place) for place in (-8, -7, -6)], AXES["momentum"].at(4)
        ([0.01, 0.01778, 0.03162], 0.9)
        """
        return float(f"{self.value(10 ** (place / PER_DECADE)):.4g}")

    def place_of(self, number: float) -> float:
        """The place of a number above zero, between points of the lattice too."""
        return PER_DECADE * math.log10(self.scaled(number))

    def point(self, number: float) -> int:
        """The point nearest to a number, inside the bounds."""
        low, high = self.bounds
        return min(max(round(self.place_of(number)), low), high)

    def override(self, place: float) -> str:
        """The override of a place."""
        return f"{self.key}={self.template.format(self.at(place))}"


AXES = {
    axis.name: axis
    for axis in (
        Axis("lr", "optimizer.lr", (-32, 12), 0.01),
        Axis("weight_decay", "optimizer.weight_decay", (-28, 8), 0.01),
        Axis("momentum", "optimizer.momentum", (1, 12), 0.9, lambda m: 1 - 1 / m, lambda m: 1 / (1 - m)),
        Axis(
            "warmup", "warmup.duration", (-12, -1), 0.05, lambda share: 100 * share, lambda v: v / 100, "{:.4g}%", "%"
        ),
    )
}
"""Momentum m is tuned as its memory, 1 / (1 - m) updates; a warm-up as its share of the run."""


def axes_of(names: str) -> list[Axis]:
    """The axes of a list such as `lr,weight_decay`. Raises ConfigError for an unknown name, a repetition, or three."""
    given = [name.strip() for name in names.split(",")]
    advice = f"give one or two of {', '.join(AXES)}"
    if unknown := [name for name in given if name not in AXES]:
        raise ConfigError(f"--of={names}: {unknown[0]!r} cannot be tuned: {advice}.")
    if len(set(given)) < len(given) or len(given) > 2:
        raise ConfigError(f"--of={names} names {len(given)} numbers: {advice}, as lr,weight_decay.")
    return [AXES[name] for name in given]


def present(axis: Axis, config: Mapping[str, Any]) -> tuple[Axis, float | None]:
    """The axis with the key that this plain config has, and its number there; None where it is unset or no number.

    Raises ConfigError where the config has no such number.
    """
    optimizer = config["optimizer"]
    if axis.name == "momentum" and "momentum" not in optimizer and optimizer.get("betas") is not None:
        first, *others = optimizer["betas"]
        rest = ",".join(f"{beta:g}" for beta in others)
        return replace(axis, key="optimizer.betas", template=f"[{{:.4g}},{rest}]"), float(first)
    group, _, key = axis.key.partition(".")
    if key not in config[group]:
        other = "a warm-up that has it, as warmup=linear" if group == "warmup" else "an optimizer that has it"
        raise ConfigError(f"--of={axis.name}: this run has no {axis.key}: choose {other}.")
    found = config[group][key]
    if axis.name == "warmup":
        share = str(found).removesuffix("%")
        return axis, float(share) if str(found).endswith("%") and float(share) > 0 else None
    usable = isinstance(found, int | float) and found > 0
    return axis, float(found) if usable else None
