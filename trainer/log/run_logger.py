"""What a run asks of its loggers beyond Lightning's: many updates at once, and a return to an earlier update."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger

from trainer.lr import ConfigError


class RunLogger(Logger):
    """A logger that can drop what was logged from some update on.

    `failures`: the errors after which it falls silent; others are bugs.
    """

    failures: type[Exception] = OSError

    @property
    def name(self) -> str:
        """Empty: the folder is that of one run."""
        return ""

    @property
    def version(self) -> str | None:
        """Empty: the folder is that of one run."""
        return ""

    def log_updates(self, steps: Sequence[int], times: Sequence[float], columns: Mapping[str, Sequence[Any]]) -> None:
        """Log n updates, each counted from 0, with the time of each in seconds and the n values of each tag.

        A value is None where an update has none.
        """
        raise NotImplementedError

    def restart(self, step: int) -> None:
        """Go on at update `step`: what was logged from `step` on is dropped, here or in an earlier process."""
        raise NotImplementedError

    def end(self, status: str) -> None:
        """The last call: the run is `completed`, `failed` or `interrupted`."""

    def abandon(self) -> None:
        """Give up what cannot be written."""


def check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be made; it may be missing, with its parents."""
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise ConfigError(f"{folder} cannot be a folder, because {there} is a file: give another folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"{there} cannot be written: give another folder, or the right to write there.")
