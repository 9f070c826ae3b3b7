"""A callback that sends its own process a signal at a moment of the run: real signals, at moments that repeat.

`+callbacks.send._target_=tests.distributed.signalling.Send allow=[tests]` puts it into any run.
"""

import os
from typing import Any

from pytorch_lightning import Callback, Trainer


class Send(Callback):
    """Sends `signum` in the hook named `hook`, the `nth` time (from 1), on these ranks; the clock shows when."""

    def __init__(self, hook: str, signum: int, nth: int = 1, ranks: list[int] | None = None) -> None:
        self.hook, self.signum, self.left, self.ranks = hook, signum, nth, ranks

    def _meet(self, hook: str, trainer: Trainer) -> None:
        if hook == self.hook:
            self.left -= 1
            if self.left == 0 and (self.ranks is None or trainer.global_rank in self.ranks):
                os.kill(os.getpid(), self.signum)

    def setup(self, trainer: Trainer, *rest: Any, **more: Any) -> None:
        self._meet("setup", trainer)

    def on_train_batch_start(self, trainer: Trainer, *rest: Any) -> None:
        self._meet("on_train_batch_start", trainer)

    def on_validation_start(self, trainer: Trainer, *rest: Any) -> None:
        self._meet("on_validation_start", trainer)

    def on_validation_batch_end(self, trainer: Trainer, *rest: Any) -> None:
        self._meet("on_validation_batch_end", trainer)

    def on_validation_end(self, trainer: Trainer, *rest: Any) -> None:
        self._meet("on_validation_end", trainer)

    def on_test_start(self, trainer: Trainer, *rest: Any) -> None:
        self._meet("on_test_start", trainer)
