"""Groups for hidden matrices: those of Muon, and those of muP, whose rates scale with the width."""

from torch import nn

from trainer.lr import ConfigError
from trainer.lr.bounds import integer
from trainer.optim.groups import Group, Make, own_lr_mult, own_weight_decay, trainable
from trainer.optim.kinds import EMBEDDING, MATRIX, kinds, no_decay
from trainer.optim.stages import stages


def hidden_matrices(net: nn.Module, *, convs: bool = True) -> set[int]:
    """The ids of the matrices that are neither embeddings nor of the last stage; with `convs`, also convolutions.

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

    Hidden are the matrices that are neither embeddings nor of the last stage. The peak and the weight decay of the rest
    are those of `optimizer`. The flag `use_muon` is for optimizers that step both kinds of groups themselves.
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
        raise ConfigError(f"groups: {type(net).__name__} has no hidden matrix, as groups=muon needs: {way}")
    mult = own_lr_mult(optimizer, lr, "groups.optimizer")
    other = Group("rest", rest, own_weight_decay(optimizer), mult, optimizer=optimizer)
    return [
        Group("hidden", hidden, weight_decay, settings={"use_muon": True}),
        *(other.split_no_decay(no_decay(net, bias, norm, embedding)) if rest else []),
    ]


def width_groups(
    net: nn.Module,
    weight_decay: float | None,
    lr: float,
    *,
    base_width: int = 64,
    bias: bool = False,
    norm: bool = False,
    embedding: bool = False,
) -> list[Group]:
    """Groups `hidden` and `head` with lr_mult = base_width / width, and `rest` with 1: the rule of muP for Adam.

    The width is the output size of the first matrix of the first stage, or the size of its embedding. All layers are
    assumed to widen together, so that width / base_width is the ratio of each fan-in to that of the base model. The
    rest are matrices of the first stage, embeddings (a tied head too) and vectors.

    Multipliers only: the initialisation and the scale of the output stay those of the model, so this is not full muP.
    Source: Yang & Hu et al. 2022, arXiv:2203.03466, table 3.

    >>> net = nn.Sequential(nn.Linear(8, 256), nn.Linear(256, 256), nn.Linear(256, 2))
    >>> [(group.name, group.lr_mult) for group in width_groups(net, 0.0, 1.0)]
    [('hidden', 0.25), ('head', 0.25), ('rest', 1.0)]
    """
    integer("groups.base_width", base_width, "it is the width of the first layer of the model that lr was tuned on.")
    mult = base_width / _width(net)
    kind, found = kinds(net), stages(net)
    first, last = ({id(parameter) for parameter in found[i]} for i in (0, -1))
    hidden = hidden_matrices(net) - first
    head = {key for key in last - first if kind[key] == MATRIX}
    parts = {"hidden": (hidden, mult), "head": (head, mult), "rest": (kind.keys() - hidden - head, 1.0)}
    groups: list[Group] = []
    for name, (members, factor) in parts.items():
        if parameters := [parameter for parameter in trainable(net) if id(parameter) in members]:
            groups += Group(name, parameters, weight_decay, factor).split_no_decay(no_decay(net, bias, norm, embedding))
    return groups


def _width(net: nn.Module) -> int:
    """The number of features of the first stage."""
    kind = kinds(net)
    for parameter in stages(net)[0]:
        if kind[id(parameter)] in (MATRIX, EMBEDDING):
            return parameter.shape[1 if kind[id(parameter)] == EMBEDDING else 0]
    raise ConfigError(
        f"groups: the first stage of {type(net).__name__} has no matrix to take the width from: choose other groups."
    )
