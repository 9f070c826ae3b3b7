"""A step as users write it, for configs of tests."""

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.engine.step import StepOutput


def classified(net: nn.Module, batch: tuple[Tensor, Tensor], *, t: int, ignored: int = 0) -> StepOutput:
    """The mean cross entropy of the samples that are not of class `ignored`, and a number of its own."""
    inputs, targets = batch
    outputs = net(inputs)
    counted = targets != ignored
    losses = functional.cross_entropy(outputs, targets, reduction="none") * counted
    count = counted.sum()
    return StepOutput(losses.sum() / count.clamp(min=1), count, {"counted": count}, outputs, targets)


def logged(net: nn.Module, batch: tuple[Tensor, Tensor], *, t: int) -> StepOutput:
    """The same loss, and the mean largest output of the samples that count."""
    given = classified(net, batch, t=t)
    counted = batch[1] != 0
    largest = (given.outputs.max(1).values * counted).sum() / counted.sum().clamp(min=1)
    return given._replace(logs={"largest": largest})


def named_as_a_metric(net: nn.Module, batch: tuple[Tensor, Tensor], *, t: int) -> StepOutput:
    return classified(net, batch, t=t)._replace(logs={"accuracy": 0.5})


def mixed(net: nn.Module, batch: tuple[Tensor, Tensor], *, t: int) -> StepOutput:
    """Mixup (Zhang et al. 2017, arXiv:1710.09412), with draws from the generators of numpy, Python and torch."""
    inputs, targets = batch
    share, order = np.random.beta(0.4, 0.4) * random.random(), torch.randperm(len(inputs))  # noqa: NPY002
    outputs = net(share * inputs + (1 - share) * inputs[order])
    parts = (functional.cross_entropy(outputs, wanted) for wanted in (targets, targets[order]))
    return StepOutput(share * next(parts) + (1 - share) * next(parts), outputs=outputs, targets=targets)


def without_t(net, batch):
    raise AssertionError("never called")


def a_tensor(net, batch, **rest):
    return net(batch[0]).sum()


def a_vector(net, batch, *, t):
    return StepOutput(net(batch[0]).sum(1))


def a_vector_in_logs(net, batch, *, t):
    outputs = net(batch[0])
    return StepOutput(outputs.mean(), logs={"means": outputs.mean(0)})


def detached(net, batch, *, t):
    outputs = net(batch[0]).detach()
    return StepOutput(outputs.square().mean(), outputs=outputs, targets=batch[1])


def negative(net, batch, *, t):
    outputs = net(batch[0])
    return StepOutput(outputs.square().mean(), -2, outputs=outputs, targets=batch[1])
