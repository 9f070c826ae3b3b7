"""What callbacks watch."""

import pytorch_lightning as pl

from trainer.lr import ConfigError


def check_monitors(trainer: pl.Trainer, known: list[str]) -> None:
    """What a callback watches must be computed, or it would fail at the first validation."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in known:
            name = type(callback).__name__
            raise ConfigError(f"monitor={monitor} of {name} is not computed: choose one of {', '.join(known)}.")
