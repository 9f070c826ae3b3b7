"""AdaScale: the gain of each update, from the noise of the gradients before it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.engine.clock import Clock
from trainer.engine.guard import check_finite
from trainer.engine.lr_control import LRControl
from trainer.engine.protocols import MicroBatch
from trainer.log.metric_buffer import Observation
from trainer.measure.micro_gradients import MicroGradients
from trainer.measure.noise_scale import NoiseScale, adascale_gain

LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class AdaScale:
    """S = B / B_ref, the base batch B_ref, and θ, the share of the means of σ² and μ² that an update keeps."""

    multiple: float
    base_batch: int
    smoothing: float

    def gain(self, square: float, trace: float) -> float:
        """r = (σ² + μ²) / (σ²/S + μ²) in [1, S], with μ² = |G|², at least 0, and σ² = tr(Σ) / B_ref, at least 1e-6.

        Where the estimate of |G|² is negative, as after few updates, the gain is S.
        """
        least = LEAST_VARIANCE * self.base_batch
        gain = adascale_gain(max(square, 0.0), max(trace, least), self.base_batch, self.multiple)
        return min(max(gain, 1.0), self.multiple)


class AdaScaleObserver:
    """Sets the gain of each update, and adds it to the clock's τ once the update has been applied.

    r_t follows from the updates before t, so r_0 = 1, and no rate depends on the gradient that it multiplies. The means
    are debiased, and clipped only then: clipping the values of each update would bias μ² upwards. After each update
    this waits for the device. Where S is 1 the gain is 1, and nothing is measured.
    """

    def __init__(self, adascale: AdaScale, sizes: tuple[int, int], clock: Clock, control: LRControl) -> None:
        self.adascale, self.clock, self.control = adascale, clock, control
        self.scale = NoiseScale(*sizes, decay=adascale.smoothing) if adascale.multiple > 1 else None
        self.micro_gradients: MicroGradients | None = None
        clock.tau = 0.0

    def before(self, t: int, update: Sequence[MicroBatch]) -> None:
        """Nothing: the gain of update `t` has been set."""

    def after(self, t: int) -> Observation:
        """Add the gain of update `t` to τ, and compute the gain of the next."""
        gain, tau = self.control.gain, self.clock.tau
        assert tau is not None
        self.clock.tau = tau + gain
        if self.scale is not None and self.micro_gradients is not None:
            small, big = self.micro_gradients.squares[:, :1].cpu()
            check_finite(t, math.sqrt(big.item()))
            self.scale.add(small, big)
            self.control.gain = self.adascale.gain(*self.scale.means[0].tolist())
        return Observation(_NOTHING, lambda _: {"adascale/gain": gain, "adascale/tau": tau})

    def state_dict(self) -> dict[str, Any]:
        """The gain of the next update, τ, and the means."""
        return {"gain": self.control.gain, "tau": self.clock.tau, "scale": self.scale and self.scale.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.control.gain, self.clock.tau = state["gain"], state["tau"]
        if self.scale is not None and state["scale"] is not None:
            self.scale.load_state_dict(state["scale"])


_NOTHING: Tensor = torch.empty(0)
