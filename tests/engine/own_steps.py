"""A step as users write it, for configs of tests."""

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
