"""Parameter groups with names: every trainable parameter in exactly one of them."""

from dataclasses import dataclass

from torch import nn

from trainer.lr import Refusal


@dataclass(frozen=True)
class Group:
    """The parameters that share a learning rate and a weight decay."""

    name: str
    parameters: list[nn.Parameter]
    weight_decay: float | None = None
    lr_mult: float = 1.0

    @property
    def size(self) -> int:
        """How many numbers the group trains."""
        return sum(parameter.numel() for parameter in self.parameters)

    def options(self) -> dict[str, object]:
        """The group as torch.optim takes it."""
        options: dict[str, object] = {"params": self.parameters, "name": self.name}
        return options if self.weight_decay is None else {**options, "weight_decay": self.weight_decay}


def decay_groups(net: nn.Module, weight_decay: float | None) -> list[Group]:
    """Two groups, `decay` and `no_decay`: vectors (biases, norms) are spared weight decay, matrices are not.

    One group `all` where there is no weight decay, or only one kind of parameter.
    Source: Goyal et al. 2017, arXiv:1706.02677, sec. 5.3, for norms; the common rule by `ndim` for biases.
    """
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not trainable:
        raise Refusal(f"the model {type(net).__name__} has no trainable parameter: there is nothing to optimize.")
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    if not weight_decay or not matrices or not vectors:
        return [Group("all", trainable, weight_decay)]
    return [Group("decay", matrices, weight_decay), Group("no_decay", vectors, 0.0)]
