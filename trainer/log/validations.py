"""`validations.jsonl`: what each validation of a run has said, a line each, there as soon as it has.

Who watches a run from outside reads it while the run goes on. A run that goes on from a checkpoint says some again.
"""

import json
import os
from pathlib import Path
from typing import Any

VALIDATIONS = "validations.jsonl"


def append(folder: Path, update: int, scores: dict[str, float]) -> None:
    """Add the line of one validation, after `update` updates."""
    line = json.dumps({"update": update, **scores}) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / VALIDATIONS).open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"  # the run before was cut short
        file.write(line.encode())


def validations(folder: Path) -> list[dict[str, Any]]:
    """All validations by update, the last word on each; a line that is not whole yet is left for later.

    Numbers that are none are NaN or infinities of the float type.
    """
    try:
        lines = (folder / VALIDATIONS).read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    told: dict[int, dict[str, Any]] = {}
    for line in lines:
        try:
            one = json.loads(line)
            told[int(one["update"])] = one
        except (ValueError, TypeError, KeyError):  # cut short by a kill
            continue
    return [told[update] for update in sorted(told)]
