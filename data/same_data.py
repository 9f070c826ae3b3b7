"""Whether a run goes on with the data that it was trained on, as far as the data tells."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

EQUAL = 1e-9
"""The relative difference of two sums of the same numbers, which may be added in another order."""


def check_same_data(
    saved: Mapping[str, Any], kind: str, fitted: Mapping[str, Any] | None, class_names: Sequence[Any] | None
) -> None:
    """ValueError where the data of class `kind` differs from that of the checkpoint `saved`.

    `fitted` is what was computed from the training samples, such as means, categories and a vocabulary.
    """
    before = (saved.get(kind) or {}).get("fitted")
    found = first_difference(before, fitted) if before is not None and fitted is not None else None
    names = saved.get("cadence", {}).get("class_names")
    if found is None and names and class_names is not None:
        found = first_difference(list(names), list(map(str, class_names)), "class_names")
    if found is not None:
        raise ValueError(
            f"data: {found[0]} is {found[2]!r}, and was {found[1]!r} when the checkpoint was written: bring that data "
            "back, or start a new run, from these weights by init.path."
        )


def first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Where two nests of plain values differ first: its name, and both values; None where they are equal."""
    if isinstance(before, Mapping) and isinstance(now, Mapping) and before.keys() == now.keys():
        parts = [first_difference(before[key], now[key], f"{name}.{key}".lstrip(".")) for key in before]
    elif isinstance(before, list | tuple) and isinstance(now, list | tuple) and len(before) == len(now):
        parts = [first_difference(*pair, f"{name}[{i}]") for i, pair in enumerate(zip(before, now))]
    elif isinstance(before, float) and isinstance(now, float) and math.isclose(before, now, rel_tol=EQUAL):
        return None
    else:
        return None if before == now else (name, before, now)
    return next((part for part in parts if part is not None), None)
