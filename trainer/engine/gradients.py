"""The steps that a `GradientTreatment` takes with gradients: an ascent, clipping by unit and by norm, noise."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from trainer.lr import ConfigError
from trainer.optim.no_grad import NoGrad
from trainer.optim.shards import local, norms, shard

SMALLEST = 1e-3
"""The smallest norm assumed for a unit's weights, so that weights of zero can change."""


@contextmanager
def ascended(net: nn.Module, parameters: Sequence[nn.Parameter], rho: float) -> Iterator[None]:
    """Inside, the weights are w + ρ g / |g| and have no gradients; afterwards they are w again, to the bit.

    g are the gradients in `parameters` and |g| is the norm of all together; their scale does not matter. The buffers
    of `net` (the running statistics of its norms) keep their values from the first pass. The cost is a second forward
    and backward pass. Foret et al. 2020, arXiv:2010.01412, eq. 2, with p = 2.
    """
    moved: list[Tensor] = [parameter for parameter in parameters if parameter.grad is not None]
    with torch.no_grad():
        gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        steps = torch._foreach_mul(gradients, rho / (norm + 1e-12))
        kept, buffers = [parameter.clone() for parameter in moved], list(net.buffers())
        before = [buffer.clone() for buffer in buffers]
        torch._foreach_add_(moved, list(steps))
    for parameter in moved:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for now, then in zip([*moved, *buffers], [*kept, *before], strict=True):
                now.copy_(then)


@torch.no_grad()
def clip_units(parameters: Sequence[nn.Parameter], share: float) -> None:
    """Bound each unit's gradient by its weights: g ← g · min(1, share · max(|w|, 1e-3) / |g|).

    A unit is an output of a matrix or a convolution (a slice of the first dimension); a vector is one as a whole.
    Brock et al. 2021, arXiv:2102.06171, eq. 3.
    """
    for parameter in parameters:
        if (gradient := parameter.grad) is not None:
            limit = share * _unit_norms(parameter).clamp(min=SMALLEST)
            norms = _unit_norms(gradient)
            gradient.mul_(torch.where(norms > limit, limit / norms.clamp(min=1e-6), torch.ones_like(norms)))


def _unit_norms(values: Tensor) -> Tensor:
    if values.ndim <= 1:
        return torch.linalg.vector_norm(values)
    return torch.linalg.vector_norm(values, dim=tuple(range(1, values.ndim)), keepdim=True)


def clip_norms(
    groups: Sequence[Sequence[nn.Parameter]], limits: Sequence[float | None], common: float | None
) -> Tensor:
    """Clip each group that has its own limit to that, and all the others together to `common`.

    Returns the norm of all gradients together before clipping. `ConfigError` where there is no gradient.
    """
    gradients = [[gradient for one in group if (gradient := one.grad) is not None] for group in groups]
    if not any(gradients):
        raise ConfigError("no parameter that the optimizer trains gets a gradient: let the loss depend on one.")
    with NoGrad():
        if common is None and not any(limits):
            return torch.linalg.vector_norm(torch.stack(norms([*chain(*gradients)])))
        shares: dict[int | None, list[Tensor]] = {}  # by the group with a limit of its own; None: all the others
        for i, (owned, limit) in enumerate(zip(gradients, limits, strict=True)):
            shares.setdefault(None if limit is None else i, []).extend(owned)
        found = {key: torch.stack(norms(owned)) for key, owned in shares.items() if owned}
        for key, norm_of_each in found.items():
            limit = common if key is None else limits[key]
            if limit is not None:
                _clip(shares[key], torch.linalg.vector_norm(norm_of_each), limit)
        every = list(found.values())
        return torch.linalg.vector_norm(torch.cat(every) if len(every) > 1 else every[0])


def _clip(gradients: Sequence[Tensor], norm: Tensor, limit: float) -> None:
    """g ← g · min(1, limit / (norm + 1e-6)); left alone on the CPU where that is surely g · 1."""
    if norm.device.type == "cpu" and norm.item() < 0.999 * limit - 1e-6:
        return
    torch._foreach_mul_([local(gradient) for gradient in gradients], torch.clamp(limit / (norm + 1e-6), max=1.0))


def add_noise(parameters: Sequence[nn.Parameter], sigma: float, seed: int, t: int) -> None:
    """Add Gaussian noise to the gradients of update `t`: g ← g + N(0, σ²), a function of (seed, t).

    It is the same in every process. Neelakantan et al. 2015, arXiv:1511.06807.
    """
    device = parameters[0].device
    generator = torch.Generator(device).manual_seed(_mixed(seed, t))
    for parameter in parameters:
        if parameter.grad is not None:
            noise = torch.randn(parameter.shape, generator=generator, device=device, dtype=parameter.grad.dtype)
            local(parameter.grad).add_(local(shard(noise, like=parameter.grad)), alpha=sigma)


def _mixed(seed: int, t: int) -> int:
    """A hash of (seed, t) to 63 bits; the CPU generator uses only the lower 32."""
    return int.from_bytes(hashlib.blake2b(f"noise {seed} {t}".encode(), digest_size=8).digest()) >> 1
