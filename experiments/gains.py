"""The arms of AdaScale: each keeps the gains that it had, and in a control the gain is held."""

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.arms import Arm
from trainer.measure.adascale import AdaScale

if TYPE_CHECKING:
    from trainer.run import Assembly

BASE, MULTIPLES = 8, (4, 16, 32, 64)
TASKS = {"noisy": (3580, 0.1), "clean": (1074, 0.0)}
"""Updates of the base batch (20 and 6 epochs), and the share of wrong labels."""
MICROS = 16
"""At most so many micro-batches in an update: beyond S = 16 they are larger than the base batch."""


@dataclass(frozen=True)
class Watched(AdaScale):
    """AdaScale that keeps the gains that it gave; `held`: the gain is this, whatever was measured."""

    held: float | None = None
    gains: list[float] = field(default_factory=list)

    def gain(self, square: float, trace: float) -> float:
        """The gain of the next update."""
        gain = super().gain(square, trace) if self.held is None else self.held
        self.gains.append(gain)
        return gain


def watch(assembly: "Assembly", held: str | None = None) -> None:
    """Keep the gains of the run; hold them at 1 (`one`) or at S (`S`), from the first update on."""
    pace = assembly.module.observers.adascale
    assert pace is not None
    chosen = pace.adascale
    fixed = {None: None, "one": 1.0, "S": chosen.multiple}[held]
    pace.adascale = Watched(chosen.multiple, chosen.base_batch, chosen.smoothing, fixed, [fixed or 1.0])
    assembly.module.control.gain = fixed or 1.0


def gains(assembly: "Assembly") -> dict[str, Any]:
    """The gain of every update that was applied."""
    pace = assembly.module.observers.adascale
    assert pace is not None
    assert isinstance(pace.adascale, Watched)
    return {"gains": pace.adascale.gains[: assembly.module.clock.t]}


def arms() -> list[Arm]:
    """Each task at S = 1, then at every S under both rules; the controls on the noisy one."""
    made = []
    for task, (length, noise) in TASKS.items():
        common = ("experiment=adascale", f"data.label_noise={noise}")
        whole = (*common, f"trainer.duration={length}")
        made += [Arm(f"{task} 1", (*whole, "trainer.accumulate=1", "scaling=linear"))]
        for multiple in MULTIPLES:
            paced = (*whole, f"data.batch_size={BASE * multiple // min(multiple, MICROS)}",
                     f"trainer.accumulate={min(multiple, MICROS)}")  # fmt: skip
            single = (f"data.batch_size={BASE * multiple}", "trainer.accumulate=1", "scaling=linear")
            shorter = f"trainer.duration={math.ceil(length / multiple)}"
            made += [
                Arm(f"{task} adascale {multiple}", paced, prepare=watch, look=gains),
                Arm(f"{task} linear {multiple}", (*common, *single, shorter)),
            ]
            if task == "noisy" and multiple in (4, 64):
                held = {4: "one", 64: "S"}[multiple]
                made += [Arm(f"{task} held {held} {multiple}", paced, prepare=partial(watch, held=held), look=gains)]
    return made
