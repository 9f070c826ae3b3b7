"""The best checkpoint of a run so far, by one metric: the choice, and the file that holds its weights."""

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

from trainer.checkpoint.io import BEST, DamagedCheckpoint, copy_checkpoint, read
from trainer.distributed.launch.launcher import rank
from trainer.lr import ConfigError

NONE_YET: dict[str, Any] = {"value": None, "update": None, "scores": {}, "arrays": {}}


class Found(NamedTuple):
    """The folder whose `best.ckpt` is the best so far, and its content; None where it is in none."""

    folder: Path | None = None
    content: dict[str, Any] | None = None


class Best:
    """Decides which checkpoint is the best by `monitor`, the latest of equals; `found` is it: value, update, scores."""

    def __init__(self, folder: Path, monitor: str, mode: str) -> None:
        self.folder, self.monitor, self.mode = folder, monitor, mode
        self.found: dict[str, Any] = dict(NONE_YET)
        self._adopted: dict[str, Any] | None = None
        self._checked: Found | None = None

    def state_dict(self) -> dict[str, Any]:
        return {**self.found, "monitor": self.monitor, "mode": self.mode}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best so far, unless another metric or direction decided it."""
        if (state_dict["monitor"], state_dict["mode"]) == (self.monitor, self.mode):
            self.found = {name: state_dict.get(name, none) for name, none in NONE_YET.items()}

    def improves(self, value: float) -> bool:
        """Whether a checkpoint with this value is the best."""
        if not math.isfinite(value):
            return False
        best = self.found["value"]
        return best is None or (value <= best if self.mode == "min" else value >= best)

    def take(self, value: float, update: int, scores: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Note that the checkpoint of this update, which is saved next, is the best."""
        self.found = {"value": value, "update": update, "scores": scores, "arrays": arrays}
        self._adopted = None

    def adopt(self, source: Path | None) -> None:
        """Copy `best.ckpt` from the folder of checkpoints that holds `source`; if it is not there, start without one.

        Raises:
            ConfigError: it is damaged.
        """
        if self.found["update"] is None:
            return
        folder, self._adopted = self._checked or self._find(source)
        self._checked = None
        if folder is not None:
            if folder != self.folder:
                copy_checkpoint(folder / BEST, self.folder / BEST)
            return
        if rank() == 0:
            print(f"{self} is not there any more: the best is chosen anew from here on", file=sys.stderr)
        self.found = dict(NONE_YET)

    def check(self, state_dict: dict[str, Any], source: Path) -> None:
        """Read what `adopt` will take, before anything is written; raises as that does."""
        self.load_state_dict(state_dict)
        self._checked = None if self.found["update"] is None else self._find(source)

    def _find(self, source: Path | None) -> Found:
        for folder in dict.fromkeys([self.folder, *([source.parent] if source else [])]):
            if (folder / BEST).exists():
                checkpoint = self._read(folder)
                if checkpoint["cadence"]["updates"] == self.found["update"]:
                    return Found(folder, checkpoint)
        return Found()

    def checkpoint(self) -> dict[str, Any] | None:
        """The best so far, if there is any. One that was adopted is in memory already, one of this run is read."""
        if self.found["update"] is None:
            return None
        return self._read(self.folder) if self._adopted is None else self._adopted

    def _read(self, folder: Path) -> dict[str, Any]:
        try:
            return read(folder / BEST, "the best checkpoint")
        except DamagedCheckpoint as damage:
            raise ConfigError(
                f"{folder / BEST} is damaged: {damage.why}. {self} is in it: put back a copy, or remove it to go on "
                "without."
            ) from damage

    def __str__(self) -> str:
        return f"The best so far ({self.monitor} {self.found['value']:.6g} at update {self.found['update']})"
