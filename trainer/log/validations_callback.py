"""The callback that writes `validations.jsonl`; not in `validations.py`, whose readers import no torch."""

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from trainer.log.validations import VALIDATIONS, append_validation


class Validations(pl.Callback):
    """Appends a line to `validations.jsonl` of the run's folder after each validation of a fit.

    The module supplies `clock.t`, the number of updates so far, and `arrays`, its matrices and curves by tag.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._silent = folder, False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        scores = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        arrays = {name: numbers for name, numbers in pl_module.arrays.items() if name.startswith("val/")}
        try:
            append_validation(self.folder, pl_module.clock.t, scores, arrays)
        except FileNotFoundError:  # the folder is gone: the save says so
            pass
        except OSError as error:
            if not self._silent:
                self._silent = True
                print(f"warning: {VALIDATIONS} lacks scores from here on: {error.strerror}.", file=sys.stderr)
