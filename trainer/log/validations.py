"""`validations.jsonl`: one line with the scores of each validation of a run, written as soon as they are known.

It can be read while the run goes on. A resumed run may write some scores again. Standard library only: the driver of a
sweep reads it without torch.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trainer.files.plain import appended, read_bytes

VALIDATIONS = "validations.jsonl"


def append_validation(
    folder: Path, update: int, scores: Mapping[str, float], arrays: Mapping[str, list[Any]] = MappingProxyType({})
) -> None:
    """Append the line of one validation, after `update` updates; matrices and curves have a key of their own."""
    line = json.dumps({"update": update, **scores, **({"arrays": dict(arrays)} if arrays else {})}) + "\n"
    with appended(folder / VALIDATIONS) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"  # the last line was cut short
        file.write(line.encode())


def read_validations(folder: Path) -> list[dict[str, Any]]:
    """All validations in the order of their updates, the newest of each update; incomplete lines are left out.

    Numbers that are not finite are returned as float NaN or infinities.
    """
    try:
        lines = read_bytes(folder / VALIDATIONS).split(b"\n")[:-1]
    except OSError:
        return []
    found: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            validation = json.loads(line)
            found[int(validation["update"])] = validation
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):  # cut short by a kill, or foreign
            continue
    return [found[update] for update in sorted(found)]


def main_scores(scores: Mapping[str, Any], most: int = 5) -> dict[str, Any]:
    """The scores to print: without the entries of a metric that has more than `most` of them."""
    sizes = Counter(name.rpartition("/")[0] for name in scores)
    return {
        name: value
        for name, value in scores.items()
        if (parent := name.rpartition("/")[0]) in ("", "val", "test") or sizes[parent] <= most
    }
