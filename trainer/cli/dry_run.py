"""The flag --dry-run: all checks of a training that is not begun."""

import os
from collections.abc import Sequence

FLAG, VARIABLE = "--dry-run", "CADENCE_DRY_RUN"


def take_flag(words: Sequence[str]) -> list[str]:
    """The words of a command without the flag; where it was among them, all processes of the command make a dry run."""
    if FLAG in words:
        os.environ[VARIABLE] = "1"
    return [word for word in words if word != FLAG]


def is_dry_run() -> bool:
    """Whether this command trains nothing."""
    return os.environ.get(VARIABLE) == "1"
