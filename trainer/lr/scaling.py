"""Batch-size scaling rules: how numbers tuned at a batch B_ref change for a batch B = κ B_ref.

`batch_size` is the global batch B (per-device × devices × nodes × accumulation), `base_batch_size` the batch B_ref
at which the optimizer was tuned. A rule gives the number that multiplies the learning rate, or a `Scaled` where more
changes. A rule with an argument `tuned` is given the optimizer's numbers by name (lr, beta1, beta2, eps, momentum,
alpha, weight_decay: those that it has), one with `adaptive` whether the optimizer divides by its second moments.

`weight_decay` says how the decay λ changes, which acts over 1 / (lr λ) updates, B / (lr λ D) epochs of D samples:
"keep" leaves it, "sqrt" and "linear" multiply it by √κ and κ, "timescale" by κ / scale, so that it acts over the same
epochs (Bergsma et al. 2025, arXiv:2505.13738). So do "keep" where the learning rate is scaled by κ, and "sqrt" where
it is scaled by √κ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trainer.lr.bounds import ConfigError, integer, number

Connection = Literal["keep", "sqrt", "linear", "timescale"]
"""How the weight decay changes with the batch."""


@dataclass(frozen=True)
class Scaled:
    """The result of a rule: `lr` multiplies the learning rate, `warmup` the epochs of the warm-up.

    `settings` are new values of the optimizer's settings, by name.
    """

    lr: float
    settings: Mapping[str, float] = field(default_factory=dict)
    warmup: float = 1.0


def no_scaling(batch_size: int, base_batch_size: int | None = None) -> float:
    """scale = 1."""
    return 1.0


def linear_scaling(
    batch_size: int,
    base_batch_size: int | None = None,
    *,
    weight_decay: Connection = "keep",
    tuned: Mapping[str, float] | None = None,
) -> float | Scaled:
    """scale = κ.  Goyal et al. 2017, arXiv:1706.02677, for SGD.

    Momentum, weight decay and epochs stay. Holds while B is well below the critical batch: beyond it use `critical`.

    >>> linear_scaling(256, base_batch_size=64)
    4.0
    """
    kappa = ratio(batch_size, base_batch_size)
    return linked(kappa, kappa, weight_decay, tuned)


def sqrt_scaling(
    batch_size: int,
    base_batch_size: int | None = None,
    *,
    weight_decay: Connection = "keep",
    tuned: Mapping[str, float] | None = None,
) -> float | Scaled:
    """scale = √κ.  Krizhevsky 2014, arXiv:1404.5997; for Adam: Malladi et al. 2022, arXiv:2205.10287.

    For small κ: it is the learning-rate part of `adam_sde`, and too low for batches near the noise scale.

    >>> sqrt_scaling(256, base_batch_size=64)
    2.0
    """
    kappa = ratio(batch_size, base_batch_size)
    return linked(math.sqrt(kappa), kappa, weight_decay, tuned)


def power_scaling(
    batch_size: int,
    base_batch_size: int | None = None,
    *,
    exponent: float = 0.75,
    weight_decay: Connection = "keep",
    tuned: Mapping[str, float] | None = None,
) -> float | Scaled:
    """scale = κ^exponent: 0 is none, 1/2 is sqrt, 1 is linear.

    McCandlish et al. 2018, arXiv:1812.06162, found for Adam and RMSprop exponents between 1/2 and 1.

    >>> power_scaling(256, base_batch_size=16, exponent=0.75)
    8.0
    """
    power = number("scaling.exponent", exponent, "give 0 (none) to 1 (linear).", 0.0, 1.0)
    kappa = ratio(batch_size, base_batch_size)
    return linked(kappa**power, kappa, weight_decay, tuned)


def auto_scaling(
    batch_size: int,
    base_batch_size: int | None = None,
    *,
    adaptive: bool | None = None,
    weight_decay: Connection = "keep",
    tuned: Mapping[str, float] | None = None,
) -> float | Scaled:
    """scale = √κ for an optimizer that is `adaptive`, κ for any other: SGD, LARS, Muon.

    Adaptive optimizers divide the update by a root of second moments, which removes the size of the noise: Adam,
    RMSprop, Adagrad and their kind, and Lion, whose sign does the same. The largest stable rate grows as √B for them
    and as B for SGD: Granziol et al. 2020, arXiv:2006.09092. In a config, `adaptive: null` is inferred from the
    optimizer's settings (betas, alpha). In Python it is refused.

    >>> auto_scaling(256, base_batch_size=64, adaptive=True), auto_scaling(256, base_batch_size=64, adaptive=False)
    (2.0, 4.0)
    """
    if not isinstance(adaptive, bool):
        raise ConfigError(f"scaling.adaptive={adaptive!r} is not known: give true for Adam's kind, false for SGD's.")
    rule = sqrt_scaling if adaptive else linear_scaling
    return rule(batch_size, base_batch_size, weight_decay=weight_decay, tuned=tuned)


def legew_scaling(
    batch_size: int,
    base_batch_size: int | None = None,
    *,
    weight_decay: Connection = "keep",
    tuned: Mapping[str, float] | None = None,
) -> Scaled:
    """scale = √κ, and a warm-up of κ times the epochs: as many updates as at B_ref.

    You et al. 2019, arXiv:1901.08256 (linear-epoch gradual warm-up), for SGD with momentum and a linear warm-up.

    >>> legew_scaling(256, base_batch_size=64)
    Scaled(lr=2.0, settings={}, warmup=4.0)
    """
    kappa = ratio(batch_size, base_batch_size)
    scale = math.sqrt(kappa)
    return Scaled(scale, decayed(scale, kappa, weight_decay, tuned), warmup=kappa)


def ratio(batch_size: int, base_batch_size: int | None) -> float:
    """κ = B / B_ref."""
    why = "it is the global batch at which optimizer.lr was tuned, a number of samples."
    if base_batch_size is None:
        raise ConfigError(f"scaling.base_batch_size is not set: {why} Set it, or take scaling=none.")
    return integer("batch_size", batch_size, why) / integer("scaling.base_batch_size", base_batch_size, why)


def linked(scale: float, kappa: float, link: Connection, tuned: Mapping[str, float] | None) -> float | Scaled:
    """`scale`, with a new weight decay where `link` asks for one."""
    settings = decayed(scale, kappa, link, tuned)
    return Scaled(scale, settings) if settings else scale


def decayed(scale: float, kappa: float, link: Connection, tuned: Mapping[str, float] | None) -> dict[str, float]:
    """{"weight_decay": the new value}; empty where it is kept."""
    factors = {"keep": 1.0, "sqrt": math.sqrt(kappa), "linear": kappa, "timescale": kappa / scale}
    if link not in factors:
        raise ConfigError(f"scaling.weight_decay={link!r} is not known: choose one of {', '.join(factors)}.")
    if link == "keep":
        return {}
    if not tuned or "weight_decay" not in tuned:
        raise ConfigError(f"scaling.weight_decay={link}, but the optimizer sets no weight_decay: set it, or take keep.")
    return {"weight_decay": tuned["weight_decay"] * factors[link]}
