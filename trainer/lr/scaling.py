"""Batch-size scaling rules: what the learning rate is multiplied by at κ = B / B_ref.

`batch_size` is the global batch B (per-device × devices × nodes × accumulation), `base_batch_size` the batch
B_ref at which the base learning rate was tuned.
"""

import math

from trainer.lr.bounds import Refusal, whole


def no_scaling(batch_size: int, base_batch_size: int | None = None) -> float:
    """scale = 1: the learning rate is taken as it is."""
    return 1.0


def linear_scaling(batch_size: int, base_batch_size: int | None = None) -> float:
    """scale = κ.  Goyal et al. 2017, arXiv:1706.02677, for SGD.

    >>> linear_scaling(256, base_batch_size=64)
    4.0
    """
    return ratio(batch_size, base_batch_size)


def sqrt_scaling(batch_size: int, base_batch_size: int | None = None) -> float:
    """scale = √κ.  Krizhevsky 2014, arXiv:1404.5997; for Adam: Malladi et al. 2022, arXiv:2205.10287.

    >>> sqrt_scaling(256, base_batch_size=64)
    2.0
    """
    return math.sqrt(ratio(batch_size, base_batch_size))


def ratio(batch_size: int, base_batch_size: int | None) -> float:
    """κ = B / B_ref."""
    why = "it is the global batch at which optimizer.lr was tuned, a number of samples."
    if base_batch_size is None:
        raise Refusal(f"scaling.base_batch_size is not set: {why} Set it, or take scaling=none.")
    return whole("batch_size", batch_size, why) / whole("scaling.base_batch_size", base_batch_size, why)
