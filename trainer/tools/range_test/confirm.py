"""Three short trainings in the bracket, half a decade apart: the best rate, and by how much it is better."""

import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.config.components import Parts, build
from trainer.config.resolve import resolve
from trainer.config.settings import Settings
from trainer.engine.update import Diverged
from trainer.lr.bounds import ConfigError
from trainer.run import fit

STEPS = (0.316, 1.0, 3.16)
Made = Callable[[int, list[str]], Settings]
"""The settings of a seed with more overrides."""


@dataclass(frozen=True)
class Trial:
    """A short training: the rate at the peak, the final loss of each seed, and their mean."""

    rate: float
    losses: list[float]

    @property
    def mean(self) -> float:
        """The mean loss; infinite where a training diverged."""
        return sum(self.losses) / len(self.losses)


@dataclass(frozen=True)
class Confirmation:
    """The trials, the one with the lowest mean loss, and the margin to the next one."""

    updates: int
    scored: str
    trials: list[Trial]

    @property
    def winner(self) -> Trial:
        """The trial with the least mean loss."""
        return min(self.trials, key=lambda trial: trial.mean)

    @property
    def margin(self) -> float:
        """(next best - best) / |best|."""
        best, following = sorted(trial.mean for trial in self.trials)[:2]
        return (following - best) / abs(best) if best else math.inf

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "winner": self.winner.rate, "margin": self.margin}


def confirm(made: Made, seeds: int, first: int, value: float, factor: float, duration: str) -> Confirmation:
    """Train at 0.316, 1 and 3.16 times the peak `value`, for `duration` of the run, with its whole schedule."""
    updates, scored = 0, ""
    trials = []
    for step in STEPS:
        losses = []
        for seed in range(first, first + seeds):
            with tempfile.TemporaryDirectory() as folder:
                rate = [f"optimizer.lr={value * step / factor!r}"]
                length = resolve(made(seed, rate)).horizon
                updates = length.updates(duration, "--confirm", least=1)
                overrides = [*rate, f"trainer.duration={updates}", f"trainer.validate={updates}"]
                loss, scored = _train(build(resolve(made(seed, overrides)), Path(folder)))
                losses.append(loss)
        trials.append(Trial(value * step, losses))
    if all(math.isinf(trial.mean) for trial in trials):
        raise ConfigError(
            "--confirm: all three trainings broke: the run needs more than a rate, such as a warm-up or clipping."
        )
    return Confirmation(updates, scored, trials)


def _train(parts: Parts) -> tuple[float, str]:
    """The validation loss at the end of a run; the training loss of its last update where nothing validates."""
    parts.trainer.callbacks.remove(parts.checkpointing)  # type: ignore[attr-defined]
    try:
        fit(parts)
    except Diverged:
        return math.inf, "loss"
    scores = parts.trainer.callback_metrics
    if "val/loss" in scores:
        value = scores["val/loss"].item()
        return value if math.isfinite(value) else math.inf, "validation loss"
    return parts.module.recent["loss"], "training loss of the last update"
