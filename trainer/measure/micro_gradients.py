"""The norms of the gradients of an update's micro-batches, taken as the update is made."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel


class MicroGradients:
    """|g|² of the gradients of the micro-batches of an update, and of their mean, over all processes.

    `squares` is (2, groups + 1) in float64, on the device: the mean |g|² of the micro-batches and |g|² of their mean,
    each for all parameters together and then by group; `count` is the number of micro-batches. Both are the same on
    each process, to the bit. Each micro-batch's gradient is measured alone and then added to the others, in autograd's
    order: the optimizer gets the same bits as without this. Nothing waits for the device.

    Several processes exchange their sums in DDP's buckets, during the last backward pass: just before the exchange a
    hook takes the norms of the last micro-batch and adds the sum of those before.
    """

    def __init__(self, groups: Sequence[Sequence[nn.Parameter]], ddp: DistributedDataParallel | None = None) -> None:
        self.parameters = [parameter for group in groups for parameter in group]
        self.index: dict[Tensor, int] = {parameter: i for i, parameter in enumerate(self.parameters)}
        self.dtype = reduce(torch.promote_types, (parameter.dtype for parameter in self.parameters), torch.float32)
        device = self.parameters[0].device
        self.zero = torch.zeros((), device=device, dtype=self.dtype)
        owners = torch.tensor([i for i, group in enumerate(groups) for _ in group], device=device)
        rows = torch.arange(-1, len(groups), device=device)[:, None]
        self.members = ((owners == rows) | (rows == -1)).double()
        self.held: list[Tensor | None] = [None] * len(self.parameters)
        self.last = [self.zero] * len(self.parameters)
        self.small = self.squares = torch.empty(0)
        self.count = 0
        self.ddp = ddp
        if ddp is not None:
            ddp.register_comm_hook(None, self._exchange)

    @torch.no_grad()
    def take(self, number: int, of: int) -> None:
        """Take the gradients of micro-batch `number` (1, …, `of`), whose loss was divided by `of`."""
        if number == of and self.ddp is not None:
            self.small = self._squares(self.last) + (self.small if of > 1 else 0)
        else:
            squares = self._squares([parameter.grad for parameter in self.parameters])
            self.small = squares if number == 1 else self.small + squares
            self._add_to_held(back=number == of)
        if number == of:
            self._conclude(of)

    def _add_to_held(self, back: bool) -> None:
        """Add the gradients of the parameters to `held` and clear them; with `back`, move the sums back instead."""
        for i, parameter in enumerate(self.parameters):
            held, gradient = self.held[i], parameter.grad
            total = gradient if held is None else held if gradient is None else held.add_(gradient)
            self.held[i], parameter.grad = (None, total) if back else (total, None)

    @torch.no_grad()
    def _exchange(self, _: Any, bucket: GradBucket) -> Future[Tensor]:
        """DDP's hook: `bucket` has the gradients of the last micro-batch, `held` the sum of those before."""
        gradients, indices = bucket.gradients(), [self.index[parameter] for parameter in bucket.parameters()]
        for i, gradient, norm in zip(indices, gradients, torch._foreach_norm(gradients, 2, self.dtype)):
            self.last[i] = norm
            if (held := self.held[i]) is not None:
                gradient.add_(held)
                self.held[i] = None
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]

    def _conclude(self, of: int) -> None:
        """The means over all micro-batches of all processes; each gradient was divided by `of`."""
        world = 1 if self.ddp is None else torch.distributed.get_world_size()
        mean = self._squares([parameter.grad for parameter in self.parameters])
        self.squares = torch.stack([self.small * of, mean]) / world
        if world > 1:
            torch.distributed.all_reduce(self.squares)
        self.count = of * world

    def _squares(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """|g|² of all parameters and of each group, from gradients or from their norms."""
        norms = torch._foreach_norm([self.zero if one is None else one for one in gradients], 2, self.dtype)
        return self.members @ torch.stack(norms).double().square()
