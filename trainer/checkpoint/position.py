"""Where a run is in Lightning's loops, and the moments after everything that belongs to a chunk or an interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl


@dataclass(frozen=True)
class Position:
    """`intervals` validation intervals are over. The present one has had `chunk` chunks of updates, the run `chunks`.

    `due` is what the present interval still lacks after its last chunk: its "validation", or only its "end", which
    follows the validation. It is None while chunks of it are left, and between two intervals.
    """

    intervals: int = 0
    chunk: int = 0
    chunks: int = 0
    due: str | None = None

    @classmethod
    def of(cls, trainer: pl.Trainer, due: str | None) -> "Position":
        """The position of a run that trains."""
        loop: Any = trainer.fit_loop
        over, begun = loop.epoch_progress.current.completed, loop.epoch_progress.current.started
        batches = loop.epoch_loop.batch_progress
        return cls(over, batches.current.ready if begun > over else 0, batches.total.ready, due)

    def loops(self) -> dict[str, Any]:
        """The state of Lightning's loops here: a fit that loads it calls the hooks that are left, and no other."""
        begun = self.intervals + (self.chunk > 0)
        epochs = {"ready": begun, "started": begun, "processed": self.intervals, "completed": self.intervals}
        names = ("ready", "started", "processed", "completed")
        found: dict[str, Any] = {
            "epoch_progress": {"total": epochs, "current": epochs},
            "epoch_loop.batch_progress": {
                "total": dict.fromkeys(names, self.chunks),
                "current": dict.fromkeys(names, self.chunk),
                "is_last_batch": self.due is not None,
            },
        }
        if self.due == "validation":  # as if it had been stopped in its first batch
            none = dict.fromkeys(names, 0)
            begun_one = {**none, "ready": 1, "started": 1}
            found["epoch_loop.val_loop.batch_progress"] = {"total": begun_one, "current": none, "is_last_batch": False}
        return {"fit_loop": found}


def call_last(trainer: pl.Trainer, after_chunk: Callable[[], None], after_interval: Callable[[], None]) -> None:
    """Call both in a fit, each after all that callbacks, hooks and loggers do at the end of a chunk or an interval.

    The validation of an interval comes between its last chunk and its end.
    """
    loop: Any = trainer.fit_loop
    of_chunk, of_interval = loop.epoch_loop.on_advance_end, loop.on_advance_end

    def end_chunk(fetcher: Any) -> None:
        if not loop.epoch_loop._skip_next_val:  # resumed at the end of an interval
            after_chunk()
        of_chunk(fetcher)

    def end_interval() -> None:
        of_interval()
        after_interval()

    loop.epoch_loop.on_advance_end, loop.on_advance_end = end_chunk, end_interval
