"""Where scheduled settings of the whole run are set: dropout, label smoothing, gradient noise."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from trainer.lr import ConfigError, LRPolicy
from trainer.lr.grow import BATCH
from trainer.optim.shards import own, part

Outlet = Callable[[float], None]


@dataclass
class GradientNoise:
    """Gaussian noise on the gradients, g + N(0, σ²): a function of (seed, t), and so the same in every process.

    Neelakantan et al. 2015, arXiv:1511.06807.
    """

    sigma: float
    seed: int

    def add(self, parameters: Sequence[nn.Parameter], t: int) -> None:
        """Add the noise of update `t` to the gradients of `parameters`."""
        if not self.sigma:
            return
        device = parameters[0].device
        generator = torch.Generator(device).manual_seed(_mixed(self.seed, t))
        for parameter in parameters:
            if parameter.grad is not None:
                noise = torch.randn(parameter.shape, generator=generator, device=device, dtype=parameter.grad.dtype)
                own(parameter.grad).add_(own(part(noise, of=parameter.grad)), alpha=self.sigma)


def _mixed(seed: int, t: int) -> int:
    """63 bits of (seed, t), each of which counts: the generator of the CPU reads only the lower half."""
    return int.from_bytes(hashlib.blake2b(f"noise {seed} {t}".encode(), digest_size=8).digest()) >> 1


def outlets(policy: LRPolicy, net: nn.Module, loss: object, noise: GradientNoise | None) -> dict[str, Outlet]:
    """What sets each scheduled setting of the whole run; refused where the run has no such setting."""
    made: dict[str, Outlet] = {}
    if "dropout" in policy.hyper_schedules:
        made["dropout"] = _dropout(net, policy.hyper_schedules["dropout"].bases[0])
    if "label_smoothing" in policy.hyper_schedules:
        if not hasattr(loss, "label_smoothing"):
            raise ConfigError(
                f"hyper_schedule.label_smoothing: {type(loss).__name__} smooths no labels: choose another task.loss."
            )
        made["label_smoothing"] = lambda value: setattr(loss, "label_smoothing", value)
    if "gradient_noise" in policy.hyper_schedules:
        assert noise is not None
        made["gradient_noise"] = lambda value: setattr(noise, "sigma", value)
    if BATCH in policy.hyper_schedules:
        made[BATCH] = lambda value: None  # the data gives the batch, and the module counts it
    return made


def _dropout(net: nn.Module, rate: float) -> Outlet:
    """Sets every dropout of `net` that has this rate: layers, and the `dropout` of attention and recurrent modules."""
    layers = [module for module in net.modules() if isinstance(module, _DropoutNd) and module.p == rate]
    others = [module for module in net.modules() if getattr(module, "dropout", None) == rate]
    if not layers and not others:
        raise ConfigError(
            f"hyper_schedule.dropout: {type(net).__name__} has no dropout of {rate}: set model.dropout above zero."
        )

    def outlet(value: float) -> None:
        for layer in layers:
            layer.p = value
        for module in others:
            setattr(module, "dropout", value)  # noqa: B010 - a module's attributes are not typed as numbers

    return outlet
