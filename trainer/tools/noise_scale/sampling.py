"""What is measured at a point of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How often, and in batches of what size, a point is measured; `batch` is a multiple of `micro`."""

    updates: int
    micro: int
    batch: int
    seed: int
