"""Scaling rules that also adapt the decay rates and ε of Adam and RMSprop to the batch size."""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal

from trainer.lr.bounds import ConfigError, fraction, number
from trainer.lr.scaling import Connection, Scaled, decayed, ratio

Tuned = Mapping[str, float] | None


def adam_sde_scaling(
    batch_size: int, base_batch_size: int | None = None, *, weight_decay: Connection = "keep", tuned: Tuned = None
) -> Scaled:
    """scale = √κ, β1 → 1 - κ(1 - β1), β2 → 1 - κ(1 - β2), ε → ε / √κ.

    Malladi et al. 2022, arXiv:2205.10287: with these Adam follows the same stochastic differential equation, while
    the noise of the gradient outweighs its mean. Refused where κ(1 - β) reaches 1, as for β1 = 0.9 at κ = 10. A β1 of
    0 stays 0, as in RMSprop. With decoupled weight decay the equation asks for `weight_decay` "sqrt".

    >>> adam_sde_scaling(256, base_batch_size=64, tuned={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8})
    Scaled(lr=2.0, settings={'beta1': 0.6, 'beta2': 0.996, 'eps': 5e-09}, warmup=1.0)
    """
    kappa = ratio(batch_size, base_batch_size)
    beta1, beta2, eps = _needed("adam_sde", tuned, ("beta1", "beta2", "eps"), "Adam")
    scale = math.sqrt(kappa)
    settings = {
        "beta1": _sooner("beta1", beta1, batch_size, base_batch_size) if beta1 else 0.0,
        "beta2": _sooner("beta2", beta2, batch_size, base_batch_size),
        "eps": eps / scale,
    }
    return Scaled(scale, settings | decayed(scale, kappa, weight_decay, tuned))


def rmsprop_sde_scaling(
    batch_size: int, base_batch_size: int | None = None, *, weight_decay: Connection = "keep", tuned: Tuned = None
) -> Scaled:
    """scale = √κ, α → 1 - κ(1 - α), ε → ε / √κ.  Malladi et al. 2022, arXiv:2205.10287.

    For RMSprop without momentum, with ε outside the root; refused where κ(1 - α) reaches 1.

    >>> rmsprop_sde_scaling(256, base_batch_size=64, tuned={"alpha": 0.99, "eps": 1e-8})
    Scaled(lr=2.0, settings={'alpha': 0.96, 'eps': 5e-09}, warmup=1.0)
    """
    kappa = ratio(batch_size, base_batch_size)
    alpha, eps = _needed("rmsprop_sde", tuned, ("alpha", "eps"), "RMSprop")
    if tuned and ("beta1" in tuned or tuned.get("momentum")):
        what = "betas" if "beta1" in tuned else f"momentum={tuned['momentum']:g}"
        raise ConfigError(
            f"scaling=rmsprop_sde is for RMSprop without momentum, and the optimizer has {what}: take sqrt."
        )
    scale = math.sqrt(kappa)
    settings = {"alpha": _sooner("alpha", alpha, batch_size, base_batch_size), "eps": eps / scale}
    return Scaled(scale, settings | decayed(scale, kappa, weight_decay, tuned))


def half_life_scaling(
    batch_size: int,
    base_batch_size: int | None = None,
    *,
    lr: Literal["sqrt", "keep"] = "sqrt",
    weight_decay: Connection = "keep",
    tuned: Tuned = None,
) -> Scaled:
    """β2 → β2^κ, and scale = √κ, or 1 with `lr` "keep".

    This keeps the half-life of the second moments, B ln(1/2) / ln β2 samples or tokens; RMSprop's α is its β2.
    Marek et al. 2025, arXiv:2507.07101. Unlike the β2 of `adam_sde`, it exists for every κ.

    >>> half_life_scaling(256, base_batch_size=128, tuned={"beta2": 0.9, "eps": 1e-8})
    Scaled(lr=1.4142135623730951, settings={'beta2': 0.81}, warmup=1.0)
    """
    kappa = ratio(batch_size, base_batch_size)
    if lr not in ("sqrt", "keep"):
        raise ConfigError(f"scaling.lr={lr!r} is not known: choose one of sqrt, keep.")
    name = "beta2" if not tuned or "beta2" in tuned or "alpha" not in tuned else "alpha"
    decay, _ = _needed("half_life", tuned, (name, "eps"), "Adam or RMSprop")
    scale = math.sqrt(kappa) if lr == "sqrt" else 1.0
    settings = {name: fraction(f"optimizer's {name}", decay, "it is a share that is kept, from 0 to 1.") ** kappa}
    return Scaled(scale, settings | decayed(scale, kappa, weight_decay, tuned))


def _needed(rule: str, tuned: Tuned, names: tuple[str, ...], kind: str) -> list[float]:
    """The tuned numbers of these names."""
    if lacking := [name for name in names if name not in (tuned or {})]:
        raise ConfigError(
            f"scaling={rule} is for {kind}: it needs {', '.join(names)}, and the optimizer's settings have no "
            f"{', '.join(lacking)}: set them, or take another rule."
        )
    return [number(f"optimizer's {name}", (tuned or {})[name], "give a value of 0 or more.", low=0.0) for name in names]


def _sooner(name: str, decay: float, batch_size: int, base_batch_size: int | None) -> float:
    """1 - κ(1 - decay), computed exactly from the decimals as written; refused where it is not above zero."""
    lost = 1 - Fraction(repr(fraction(f"optimizer's {name}", decay, "it is a share that is kept, from 0 to 1.")))
    kappa = Fraction(batch_size, base_batch_size or 1)
    if kappa * lost >= 1 and kappa != 1:
        most = math.ceil((base_batch_size or 1) / lost) - 1
        raise ConfigError(
            f"scaling: {name}={decay:g}, tuned at a batch of {base_batch_size}, has no counterpart at {batch_size}: "
            f"κ(1 - {name}) = {float(kappa * lost):g} is not below 1. Take a batch of at most {most}, or scaling=sqrt."
        )
    return float(1 - kappa * lost)
