"""Parameter groups with names: every trainable parameter in exactly one of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainer.lr import Refusal

Make = Callable[[list[dict[str, Any]]], Optimizer]
"""What makes an optimizer from groups as torch.optim takes them."""


@dataclass(frozen=True)
class Group:
    """The parameters that share a learning rate and a weight decay.

    `schedule` is the config of a schedule of their own, `clip` the largest norm of their gradients together, and
    `optimizer` what steps them in place of the run's optimizer; None for those of the run.
    """

    name: str
    parameters: list[nn.Parameter]
    weight_decay: float | None = None
    lr_mult: float = 1.0
    schedule: Any = None
    clip: float | None = None
    optimizer: Make | None = None

    @property
    def size(self) -> int:
        """How many numbers the group trains."""
        return sum(parameter.numel() for parameter in self.parameters)

    def options(self) -> dict[str, Any]:
        """The group as torch.optim takes it."""
        options: dict[str, Any] = {"params": self.parameters, "name": self.name}
        return options if self.weight_decay is None else {**options, "weight_decay": self.weight_decay}


def check_coverage(net: nn.Module, groups: Sequence[Group]) -> None:
    """Refuse groups that leave out a trainable parameter of `net`, claim one twice, share a name or are empty."""
    names = {id(parameter): name for name, parameter in net.named_parameters() if parameter.requires_grad}
    if not names:
        raise Refusal(f"the model {type(net).__name__} has no trainable parameter: there is nothing to optimize.")
    claimed: dict[int, str] = {}
    for group in groups:
        if not group.parameters or [other.name for other in groups].count(group.name) > 1:
            raise Refusal(f"groups: {group.name} has no parameter, or shares its name: give each group its own.")
        for parameter in group.parameters:
            if id(parameter) in claimed:
                told = f"{names.get(id(parameter), 'a parameter')} is claimed by {claimed[id(parameter)]}"
                raise Refusal(f"groups: {told} and by {group.name}: each parameter belongs to one group.")
            claimed[id(parameter)] = group.name
    if missing := [name for key, name in names.items() if key not in claimed]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Refusal(f"groups: no group claims {missing[0]}{more}: each parameter belongs to one group.")


def decay_groups(
    net: nn.Module,
    weight_decay: float | None,
    lr: float,
    *,
    bias: bool = False,
    norm: bool = False,
    embedding: bool = False,
) -> list[Group]:
    """Two groups, `decay` and `no_decay`: biases, norms and embeddings are spared weight decay, where not switched on.

    One group `all` where there is no weight decay, or only one kind of parameter.
    Source: Goyal et al. 2017, arXiv:1706.02677, sec. 5.3, for norms.
    """
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    if not weight_decay or not matrices or not vectors:
        return [Group("all", trainable, weight_decay)]
    return [Group("decay", matrices, weight_decay), Group("no_decay", vectors, 0.0)]
