"""What a test on a cluster needs of a run: that it can be slowed down while something is done to it, and a fingerprint.

`+callbacks.watched._target_=tests.cluster.watched.Watched allow=[tests]` puts it into any run.
"""

import hashlib
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class Watched(Callback):
    """Sleeps in each block of updates until `folder/quick` exists; each rank notes a hash of its final weights."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(self, *of_the_batch: Any) -> None:
        if not (self.folder / "quick").exists():
            time.sleep(0.4)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bits = b"".join(p.detach().numpy().tobytes() for p in pl_module.parameters())
        (self.folder / f"rank{trainer.global_rank}.sha").write_text(hashlib.sha256(bits).hexdigest())
