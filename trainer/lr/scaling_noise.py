"""Scaling rules that use the noise scale: the batch at which the noise of the gradient is as large as its mean."""

import math
from collections.abc import Mapping

from trainer.lr.bounds import ConfigError, number, positive
from trainer.lr.scaling import Connection, Scaled, linked, ratio


def critical_scaling(
    batch_size: int,
    base_batch_size: int | None = None,
    *,
    noise_batch: float | None = None,
    exponent: float = 1.0,
    weight_decay: Connection = "keep",
    tuned: Mapping[str, float] | None = None,
) -> float | Scaled:
    """scale = ((1 + N / B_ref) / (1 + N / B))^exponent, where N is `noise_batch`.

    It is κ^exponent for batches far below N, and at most (1 + N / B_ref)^exponent: far beyond N a larger batch allows
    no larger rate. McCandlish et al. 2018, arXiv:1812.06162: the exponent is 1 for SGD, with momentum or without, and
    between 1/2 and 1 for Adam and RMSprop. N is measured at a well-tuned rate, and grows during a run.

    >>> critical_scaling(192, base_batch_size=64, noise_batch=192)
    2.0
    """
    noise = _noise(noise_batch)
    power = number("scaling.exponent", exponent, "give 1 for SGD, 0.5 to 1 for Adam.", 0.0, 1.0)
    kappa = ratio(batch_size, base_batch_size)
    scale = ((1.0 + noise * kappa / batch_size) / (1.0 + noise / batch_size)) ** power
    return linked(scale, kappa, weight_decay, tuned)


def surge_scaling(
    batch_size: int,
    base_batch_size: int | None = None,
    *,
    noise_batch: float | None = None,
    weight_decay: Connection = "keep",
    tuned: Mapping[str, float] | None = None,
) -> float | Scaled:
    """scale = f(B) / f(B_ref) with f(B) = 2 / (√(N / B) + √(B / N)), where N is `noise_batch`.

    It rises as √B below N, is highest at N, and falls beyond it. For Adam and its kind: Li et al. 2024,
    arXiv:2405.14578. N, and with it the peak, grows during a run.

    >>> [surge_scaling(batch, base_batch_size=256, noise_batch=4096) for batch in (256, 1024, 4096, 16384, 65536)]
    [1.0, 1.7, 2.125, 1.7, 1.0]
    """
    noise = _noise(noise_batch)
    kappa = ratio(batch_size, base_batch_size)
    scale = _width(noise * kappa / batch_size) / _width(noise / batch_size)
    return linked(scale, kappa, weight_decay, tuned)


def _width(share: float) -> float:
    """√x + 1/√x, which is least, 2, at x = 1."""
    return math.sqrt(share) + 1.0 / math.sqrt(share)


def _noise(noise_batch: float | None) -> float:
    why = "it is the batch at which the noise of the gradient is as large as its mean, in samples: measure it."
    if noise_batch is None:
        raise ConfigError(f"scaling.noise_batch is not set: {why}")
    return positive("scaling.noise_batch", noise_batch, why)
