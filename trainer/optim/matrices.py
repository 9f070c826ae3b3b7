"""Hidden matrices apart from all else, for optimizers such as Muon that are made for matrices."""

from torch import nn

from trainer.lr import ConfigError
from trainer.optim.groups import Group, Make, trainable
from trainer.optim.kinds import MATRIX, kinds, spared
from trainer.optim.layers import stages
from trainer.optim.own import own_decay, own_mult


def hidden_matrices(net: nn.Module, *, convs: bool = True) -> set[int]:
    """The ids of the matrices that are neither embeddings nor of the last stage; kernels of convolutions by choice.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> hidden_matrices(net) == {id(net[0].weight)}
    True
    """
    kind, last = kinds(net), {id(parameter) for parameter in stages(net)[-1]}
    return {
        id(parameter)
        for parameter in trainable(net)
        if kind[id(parameter)] == MATRIX and id(parameter) not in last and (convs or parameter.ndim == 2)
    }


def matrix_groups(
    net: nn.Module,
    weight_decay: float | None,
    lr: float,
    *,
    optimizer: Make,
    convs: bool = False,
    bias: bool = False,
    norm: bool = False,
    embedding: bool = False,
) -> list[Group]:
    """Groups `hidden`, which the run's optimizer steps, and `rest` with `rest_no_decay`, which `optimizer` steps.

    Hidden are the matrices that are neither embeddings nor of the last stage. The lr of `optimizer` is the peak of the
    rest, its weight decay theirs. The flag `use_muon` is for optimizers that mix both themselves.
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".

    >>> from functools import partial
    >>> from torch.optim import AdamW
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> groups = matrix_groups(net, 0.1, 0.02, optimizer=partial(AdamW, lr=0.01))
    >>> [(group.name, group.lr_mult) for group in groups]
    [('hidden', 1.0), ('rest', 0.5), ('rest_no_decay', 0.5)]
    """
    inside = hidden_matrices(net, convs=convs)
    hidden = [parameter for parameter in trainable(net) if id(parameter) in inside]
    rest = [parameter for parameter in trainable(net) if id(parameter) not in inside]
    if not hidden:
        way = (
            "choose another optimizer." if convs else "choose another optimizer, or groups.convs=true if it takes them."
        )
        raise ConfigError(f"groups: {type(net).__name__} has no hidden matrix, which groups=muon is for: {way}")
    mult = own_mult(optimizer, lr, "groups.optimizer")
    other = Group("rest", rest, own_decay(optimizer), mult, optimizer=optimizer)
    return [
        Group("hidden", hidden, weight_decay, settings={"use_muon": True}),
        *(other.parted(spared(net, bias, norm, embedding)) if rest else []),
    ]
