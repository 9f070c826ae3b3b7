"""The decay of a weight average at another batch size."""

from trainer.lr.bounds import ConfigError
from trainer.lr.horizon import Duration
from trainer.lr.scaling import ratio


def scaled_decay(decay: float, batch_size: int, base_batch_size: int | None, every: Duration = 1) -> float:
    """decay^κ with κ = B / B_ref: the average then spans the same samples.  Busbridge et al. 2023, arXiv:2307.13813.

    `every` is the interval at which weights are averaged. Where it is given in epochs, samples or percent,
    the average spans the same samples already: refused.

    >>> scaled_decay(0.99, 256, base_batch_size=128)
    0.9801
    """
    if base_batch_size is None:
        raise ConfigError(
            "average.scaled=true needs the batch at which the decay was tuned: set scaling.base_batch_size."
        )
    if not str(every).strip().isdigit():
        raise ConfigError(
            f"average.scaled=true with average.every={every}, which spans the same samples at any batch size: take "
            "average.scaled=false, or give every in updates."
        )
    return decay ** ratio(batch_size, base_batch_size)
