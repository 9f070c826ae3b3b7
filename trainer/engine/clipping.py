"""What is done to gradients before the step: clipped by unit, by group, all together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.optim.shards import norms, own

SMALLEST = 1e-3
"""The least norm that a unit's weights are taken to have, so that weights of zero can leave it."""


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


@torch.no_grad()
def clip_norms(
    groups: Sequence[Sequence[nn.Parameter]], limits: Sequence[float | None], common: float | None
) -> Tensor:
    """Clip each group that has a limit of its own to it, and all the others together to `common`.

    Returns the norm of all gradients together as it was before.
    """
    shares: dict[int | None, list[Tensor]] = {}  # by the group with a limit of its own; None: all the others
    for i, (group, limit) in enumerate(zip(groups, limits, strict=True)):
        owned = [parameter.grad for parameter in group if parameter.grad is not None]
        shares.setdefault(None if limit is None else i, []).extend(owned)
    found = {key: torch.stack(list(norms(owned))) for key, owned in shares.items() if owned}
    for key, norm_of_each in found.items():
        limit = common if key is None else limits[key]
        if limit is not None:
            norm = torch.linalg.vector_norm(norm_of_each)
            parts = [own(gradient) for gradient in shares[key]]
            torch._foreach_mul_(parts, torch.clamp(limit / (norm + 1e-6), max=1.0))
    return torch.linalg.vector_norm(torch.cat(list(found.values())))
