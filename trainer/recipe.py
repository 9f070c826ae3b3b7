"""What a net is trained by, in one place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.optim import Optimizer

from trainer.adascale import AdaScale
from trainer.averaging import NONE, Average
from trainer.lr import Horizon, Policy
from trainer.optim.groups import Group
from trainer.outlets import GradientNoise
from trainer.update import Observer


@dataclass(frozen=True)
class Recipe:
    """How a net is trained: the curve, its length, what steps, what is done to gradients, what is averaged and logged.

    `micro_batch` are the samples of one on one device; with `noise_decay` the noise scale is logged. `origin` is kept
    in each checkpoint: the config, and where the curve comes from.
    """

    policy: Policy
    horizon: Horizon
    optimizer: Callable[[], Optimizer]
    groups: Sequence[Group]
    clip: float | None = None
    log_every: int = 50
    noise: GradientNoise | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    observe: Callable[..., Observer] | None = None
    agc: float | None = None
    sam: float | None = None
    average: Average = NONE
    accumulate: int = 1
    micro_batch: int = 1
    adascale: AdaScale | None = None
    noise_decay: float | None = None
