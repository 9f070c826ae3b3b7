"""The gradient noise scale, measured from micro-batches, and learning-rate ratios that follow from it.

With G the gradient of the whole loss and Σ the covariance of one sample's gradient, a batch of B samples has
E|G_B|² = |G|² + tr(Σ) / B. Two batch sizes determine the two unknowns. Their ratio B_simple = tr(Σ) / |G|² is the
batch at which noise and signal are equal. McCandlish et al. 2018, arXiv:1812.06162, appendix A.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.lr import ConfigError
from trainer.lr.bounds import integer, number, positive
from trainer.measure.noise_interval import Estimate, estimate, student

_STATE = ("weight", "squared_weight", "means", "products")


class NoiseScale:
    """Estimates the noise scale from updates that are added one by one: of all parameters, and of each group.

    `small` and `big` are the samples of a micro-batch and of the whole batch. Numerator and denominator are averaged
    separately and then divided, because the mean of ratios is biased. Both means are plain, or exponential with `decay`
    and bias-corrected. The intervals at `confidence` take updates as independent, with (Σw)² / Σw² as their effective
    number: Student's for |G|² and tr(Σ), Fieller's for the ratio.

    >>> scale = NoiseScale(small=1, big=4)
    >>> for big in (0.9, 1.1, 1.0):  # with |G|² = 0.5 and tr(Σ) = 2, on average
    ...     scale.add(torch.tensor([2.5]), torch.tensor([big]))
    >>> round(scale.estimates()[0].noise_scale(), 6)
    4.0
    """

    def __init__(self, small: int, big: int, decay: float | None = None, confidence: float = 0.95) -> None:
        self.small = integer("small", small, "it is the samples of a micro-batch.")
        self.big = integer("big", big, "it is the samples of the whole batch, above those of a micro-batch.", small + 1)
        if decay is not None:
            number("decay", decay, "it is the share of a mean that an update keeps, from 0 to below 1, or null.", 0, 1)
            if decay == 1:
                raise ConfigError("decay=1 ignores every value: give a number below 1, or null for the plain mean.")
        number("confidence", confidence, "it is the confidence of the interval, such as 0.95.", 0.5, 0.9999)
        self.decay, self.confidence = 1.0 if decay is None else decay, confidence
        self.weight = self.squared_weight = 0.0
        self.means = self.products = torch.empty(0)

    def add(self, small: Tensor, big: Tensor, batch: int | None = None) -> None:
        """Add an update: the mean |g|² of its micro-batches, and |g|² of their mean; each (groups,).

        `batch` is the number of samples of this update's batch, by default `big`.
        """
        small, big, size = small.double().cpu(), big.double().cpu(), self.big if batch is None else batch
        square = (size * big - self.small * small) / (size - self.small)
        trace = (small - big) / (1 / self.small - 1 / size)
        values = torch.stack([square, trace], dim=-1)
        if not self.weight:
            self.means, self.products = torch.zeros_like(values), torch.zeros(*values.shape, 2, dtype=torch.float64)
        before = self.decay * self.weight
        self.weight = before + 1
        self.squared_weight = self.decay**2 * self.squared_weight + 1
        apart = values - self.means
        self.means = self.means + apart / self.weight
        self.products = self.decay * self.products + before / self.weight * apart[:, :, None] * apart[:, None, :]

    @property
    def count(self) -> float:
        """The effective number of updates in the means."""
        return self.weight**2 / self.squared_weight if self.weight else 0.0

    def state_dict(self) -> dict[str, Any]:
        """The means so far, without the sizes and the decay."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        for name in _STATE:
            setattr(self, name, state[name])

    def estimates(self) -> list[Estimate]:
        """The estimate for each group that was added. `ConfigError` before there are two updates."""
        if self.count <= 1:
            raise ConfigError(f"the noise scale has no interval after {self.count:.0f} updates: measure two or more.")
        covariances = self.products / self.weight / (self.count - 1)  # of the means
        t = student(self.confidence, self.count - 1)
        rows = zip(self.means.tolist(), covariances.tolist())
        return [estimate(square, trace, covariance, t, self.count) for (square, trace), covariance in rows]


def squares(gradients: Iterable[Sequence[Tensor | None]], owners: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The mean |g|² of the micro-batch gradients of one update, and |g|² of their mean, in float64.

    A gradient is a tensor for each parameter, None where the loss does not depend on it; `owners` are the groups of
    the parameters, 0 to n - 1. Both results are (n + 1,): all parameters together, then each group. Only one gradient
    and the sum are kept in memory. `ConfigError` for fewer than two micro-batches.
    """
    sums: list[Tensor | None] = [None] * len(owners)
    small, count = torch.zeros(max(owners) + 2, dtype=torch.float64), 0
    for gradient in gradients:
        wide = [None if part is None else part.detach().double() for part in gradient]
        small += _norms(wide, owners)
        sums = [total if part is None else part if total is None else total + part for total, part in zip(sums, wide)]
        count += 1
    if count < 2:
        raise ConfigError(f"the noise scale needs two micro-batches or more, not {count}: make them smaller.")
    return small / count, _norms(sums, owners) / count**2


def _norms(gradient: Sequence[Tensor | None], owners: Sequence[int]) -> Tensor:
    """|g|² of all parameters and of each group."""
    parts = [(owner, part.square().sum()) for owner, part in zip(owners, gradient) if part is not None]
    norms = torch.zeros(max(owners) + 2, dtype=torch.float64)
    if parts:
        of_parts = torch.stack([norm for _, norm in parts]).cpu()
        norms.index_add_(0, torch.tensor([owner + 1 for owner, _ in parts]), of_parts)
        norms[0] = of_parts.sum()
    return norms


def adascale_gain(square: float, trace: float, batch: float, multiple: float) -> float:
    """r(S) = (σ² + μ²) / (σ²/S + μ²), with μ² = |G|² and σ² = tr(Σ) / B: between 1 and S.

    How many updates with a batch of B an update with S · B is worth. Johnson et al. 2020, arXiv:2007.05105.

    >>> adascale_gain(square=1.0, trace=64.0, batch=32, multiple=4)
    2.0
    """
    number("|G|²", square, "the square of a gradient is not negative: measure until it is resolved.", low=0.0)
    number("tr(Σ)", trace, "a variance is not negative: measure until it is resolved.", low=0.0)
    number("multiple", multiple, "it is the size of the batch as a multiple of `batch`, at least 1.", low=1.0)
    variance = trace / positive("batch", batch, "it is a number of samples.")
    if variance + square == 0:
        raise ConfigError("|G|²=0 and tr(Σ)=0: the gain is not defined without a gradient.")
    return (variance + square) / (variance / multiple + square)


def optimal_lr_ratio(noise: float, batch: float, base_batch: float) -> float:
    """ε(B) / ε(B₀) = (1 + N/B₀) / (1 + N/B), with N the noise scale, as ε(B) = ε_max / (1 + N/B).

    McCandlish et al. 2018, arXiv:1812.06162, for SGD. The same number as `adascale_gain` at S = B/B₀.

    >>> optimal_lr_ratio(noise=64.0, batch=128, base_batch=32)
    2.0
    """
    number("noise", noise, "it is a number of samples, not negative.", low=0.0)
    why = "it is a number of samples."
    return (1 + noise / positive("base_batch", base_batch, why)) / (1 + noise / positive("batch", batch, why))
