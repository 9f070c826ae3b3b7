"""Sharpness-aware minimisation: the gradients of an update, taken where the loss is about highest nearby."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def ascended(net: nn.Module, parameters: Sequence[nn.Parameter], rho: float) -> Iterator[None]:
    """Within, the weights are w + ρ g / |g| and have no gradients; afterwards they are w again, to the bit.

    |g| is the norm of all gradients together, as they lie in `parameters`; their scale does not matter. The buffers
    of `net` (the running statistics of its norms) see the first pass alone. The cost is a second forward and backward
    pass. Foret et al. 2020, arXiv:2010.01412, eq. 2, with p = 2.
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
