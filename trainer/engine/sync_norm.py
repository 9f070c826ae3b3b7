"""BatchNorm over the micro-batches of all processes on the CPU; torch's `SyncBatchNorm` works on GPUs only."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.lr import ConfigError


class _Total(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        summed = own.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed


def total(own: Tensor) -> Tensor:
    """The sum of a tensor over all processes."""
    summed: Tensor = _Total.apply(own)
    return summed


class SyncNorm(_BatchNorm):
    """y = (x - μ) / √(σ² + ε) · γ + β with μ and σ² of a channel over the inputs (N, C, …) of all processes.

    Gradients flow through the μ and σ² of all processes, so that N ranks with n samples equal one with Nn. Accumulated
    micro-batches are normalised separately. Scoring uses the running statistics.
    """

    def _check_input_dim(self, inputs: Tensor) -> None:
        if inputs.ndim < 2:
            raise ValueError(f"BatchNorm got inputs of {inputs.ndim} dimensions: give it (N, C, …).")

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(inputs)
        self._check_input_dim(inputs)
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(inputs.ndim)]
        sums = torch.cat([inputs.sum(axes), inputs.new_tensor([inputs.numel() // inputs.shape[1]])])
        *_, count = sums = total(sums)
        mean = sums[:-1] / count
        centred = inputs - mean.view(shape)
        variance = total((centred * centred).sum(axes)) / count
        self._remember(mean.detach(), variance.detach() * count.detach() / (count.detach() - 1))
        outputs = centred * torch.rsqrt(variance + self.eps).view(shape)
        return outputs * self.weight.view(shape) + self.bias.view(shape) if self.affine else outputs

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch, as `nn.BatchNorm2d` does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def synced(net: nn.Module, gpu: bool) -> nn.Module:
    """`net` with its BatchNorm over all processes and the same parameters. Refused where it has no BatchNorm."""
    net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    norms = [module for module in net.modules() if isinstance(module, nn.SyncBatchNorm)]
    if not norms:
        raise ConfigError(f"trainer.sync_batchnorm=true, but {type(net).__name__} has no BatchNorm: leave it false.")
    for norm in norms if not gpu else ():
        norm.__class__ = SyncNorm  # type: ignore[assignment]
    return net
