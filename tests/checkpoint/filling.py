"""A callback that fills the disk of the working folder."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, Trainer


class Fill(Callback):
    """Writes the file `filler` until the disk is full, before update `at`."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *rest: Any) -> None:
        if pl_module.clock.t == self.at:
            with suppress(OSError), Path("filler").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
