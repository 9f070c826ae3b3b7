"""AdaScale: a factor that follows the measured noise of the gradient."""

from trainer.lr.bounds import ConfigError, number
from trainer.lr.scaling import ratio

ADASCALE = f"{__name__}.adascale_scaling"
"""The `_target_` of a `scaling` config that chooses it."""


def adascale_scaling(batch_size: int, base_batch_size: int | None = None, *, smoothing: float | None = None) -> float:
    """scale = r_t, the gain of update t, between 1 and S = B / B_ref; this function gives r_0 = 1.

    r = (σ² + μ²) / (σ²/S + μ²), with μ² = |G|² and σ² = tr(Σ) / B_ref: how many updates at B_ref an update at B is
    worth. The curve is read at ⌊τ⌋, τ is the sum of the gains so far, and the run ends when τ reaches T: all of its
    durations count scale-invariant iterations, updates at B_ref. No warm-up is needed, because the gain starts small.
    For SGD, with momentum or without. Johnson et al. 2020, AdaScale SGD, ICML.

    `smoothing` is θ, the share of the means of σ² and μ² that each update keeps; by default `gain_smoothing(S)`.

    >>> adascale_scaling(256, base_batch_size=32)
    1.0
    """
    gain_smoothing(multiple_of(batch_size, base_batch_size), smoothing)
    return 1.0


def multiple_of(batch_size: int, base_batch_size: int | None) -> float:
    """S = B / B_ref. Refused below 1, where the gain is not defined."""
    multiple = ratio(batch_size, base_batch_size)
    if multiple < 1:
        raise ConfigError(
            f"scaling=adascale: the global batch of {batch_size} is below scaling.base_batch_size={base_batch_size}, "
            "and its gain is at least 1: enlarge the batch, or take scaling=linear."
        )
    return multiple


def gain_smoothing(multiple: float, smoothing: float | None = None) -> float:
    """θ, the share of the means of σ² and μ² that each update keeps: max(1 - S/1000, 0) where none is given.

    >>> gain_smoothing(8), gain_smoothing(2000), gain_smoothing(8, 0.9)
    (0.992, 0.0, 0.9)
    """
    if smoothing is None:
        return max(1.0 - multiple / 1000, 0.0)
    return number("scaling.smoothing", smoothing, "give 0 (the last update alone) to 0.9999, or null.", 0.0, 0.9999)
