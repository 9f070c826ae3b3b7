"""Parameter groups with names: every trainable parameter in exactly one of them."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainer.lr import ConfigError
from trainer.lr.bounds import positive
from trainer.optim.kinds import no_decay

Make = Callable[[list[dict[str, Any]]], Optimizer]
"""Makes an optimizer from groups as torch.optim takes them."""


@dataclass(frozen=True)
class Group:
    """The parameters that share a learning rate and a weight decay.

    `schedule` is the config of their own schedule, `clip` the largest norm of their gradients together, `optimizer`
    makes the optimizer that steps them; None for those of the run. `settings` are further entries of the group that
    some optimizers read, such as a flag.
    """

    name: str
    parameters: list[nn.Parameter]
    weight_decay: float | None = None
    lr_mult: float = 1.0
    schedule: Any = None
    clip: float | None = None
    optimizer: Make | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many numbers the group trains."""
        return sum(parameter.numel() for parameter in self.parameters)

    def options(self) -> dict[str, Any]:
        """The group as torch.optim takes it."""
        options: dict[str, Any] = {"params": self.parameters, "name": self.name, **self.settings}
        return options if self.weight_decay is None else {**options, "weight_decay": self.weight_decay}

    def split_no_decay(self, undecayed: Collection[int]) -> list["Group"]:
        """The group, split in two: NAME, and NAME_no_decay with the parameters whose ids are in `undecayed`.

        One group where it has no weight decay, or where all or none of its parameters are in `undecayed`.
        """
        if not self.weight_decay or not any(id(parameter) in undecayed for parameter in self.parameters):
            return [self]
        decayed = [parameter for parameter in self.parameters if id(parameter) not in undecayed]
        rest = [parameter for parameter in self.parameters if id(parameter) in undecayed]
        if not decayed:
            return [replace(self, weight_decay=0.0)]
        return [
            replace(self, parameters=decayed),
            replace(self, name=f"{self.name}_no_decay", parameters=rest, weight_decay=0.0),
        ]


def check_coverage(net: nn.Module, groups: Sequence[Group]) -> None:
    """Refuse groups that leave out a trainable parameter of `net`, claim one twice, share a name or are empty."""
    names = {id(parameter): name for name, parameter in net.named_parameters() if parameter.requires_grad}
    if not names:
        raise ConfigError(f"the model {type(net).__name__} has no trainable parameter: there is nothing to optimize.")
    claimed: dict[int, str] = {}
    for group in groups:
        if not group.parameters or [other.name for other in groups].count(group.name) > 1:
            raise ConfigError(f"groups: {group.name} has no parameters, or its name is not unique: give each its own.")
        for parameter in group.parameters:
            if id(parameter) in claimed:
                claims = f"{names.get(id(parameter), 'a parameter')} is claimed by {claimed[id(parameter)]}"
                raise ConfigError(f"groups: {claims} and by {group.name}: each parameter belongs to one group.")
            claimed[id(parameter)] = group.name
    if missing := [name for key, name in names.items() if key not in claimed]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(f"groups: no group claims {missing[0]}{more}: each parameter belongs to one group.")


def trainable(net: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained, in the order of the net, each once."""
    return [parameter for parameter in net.parameters() if parameter.requires_grad]


def decay_groups(
    net: nn.Module,
    weight_decay: float | None,
    lr: float,
    *,
    bias: bool = False,
    norm: bool = False,
    embedding: bool = False,
    apart: bool = False,
) -> list[Group]:
    """Two groups, `decay` and `no_decay`: biases, norms and embeddings have no weight decay unless switched on.

    One group `all` where there is no weight decay, or only one kind of parameter. With `apart` the split is made
    without weight decay too, and a single group is called `decay` or `no_decay`.
    Source: Goyal et al. 2017, arXiv:1706.02677, sec. 5.3, for norms.

    >>> [group.name for group in decay_groups(nn.Linear(2, 2), 0.1, 1.0)]
    ['decay', 'no_decay']
    """
    undecayed = no_decay(net, bias, norm, embedding)
    decayed = [parameter for parameter in trainable(net) if id(parameter) not in undecayed]
    rest = [parameter for parameter in trainable(net) if id(parameter) in undecayed]
    none = None if weight_decay is None else 0.0
    if (weight_decay and decayed and rest) or apart:
        two = [Group("decay", decayed, weight_decay), Group("no_decay", rest, none)]
        return [group for group in two if group.parameters]
    return [Group("all", trainable(net), weight_decay if decayed else none)]


def one_group(net: nn.Module, weight_decay: float | None, lr: float) -> list[Group]:
    """One group, `all`, with the weight decay of the optimizer for every parameter.

    >>> [group.name for group in one_group(nn.Linear(2, 2), 0.1, 1.0)]
    ['all']
    """
    return [Group("all", trainable(net), weight_decay)]


def own_lr_mult(optimizer: Make, lr: float, whose: str) -> float:
    """The lr of `optimizer` over the run's `lr`; 1 where it has none. `whose` names it in an error message."""
    mine = _setting(optimizer, "lr")
    return 1.0 if mine is None else positive(f"{whose}: optimizer.lr", mine, "it is the peak of the group.") / lr


def own_weight_decay(optimizer: Make) -> float | None:
    """The weight decay of `optimizer`, as given or by default; None where it has no such setting."""
    return _setting(optimizer, "weight_decay")


def _setting(optimizer: Make, name: str) -> Any:
    """The value that a call of `optimizer` uses for its argument `name`; None where it has none."""
    parameter = inspect.signature(optimizer).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default
