"""Rates by width: what was tuned on a narrow model serves a wide one."""

from torch import nn

from trainer.lr import ConfigError
from trainer.lr.bounds import whole
from trainer.optim.groups import Group, trainable
from trainer.optim.kinds import EMBEDDING, MATRIX, kinds, spared
from trainer.optim.layers import stages
from trainer.optim.matrices import hidden_matrices


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

    The width is that of the first stage, what its first matrix gives or its embedding holds: the channels, the
    features or the embedding that the model is made with. All layers are taken to widen together, so that base / width
    is the ratio of each fan-in to that of the base. Matrices of the first stage, embeddings (a tied head too) and
    vectors are the rest.

    Multipliers only: the initialisation and the scale of the output stay those of the model, so this is no full muP.
    Source: Yang & Hu et al. 2022, arXiv:2203.03466, table 3.

    >>> net = nn.Sequential(nn.Linear(8, 256), nn.Linear(256, 256), nn.Linear(256, 2))
    >>> [(group.name, group.lr_mult) for group in width_groups(net, 0.0, 1.0)]
    [('hidden', 0.25), ('head', 0.25), ('rest', 1.0)]
    """
    whole("groups.base_width", base_width, "it is the width of the first layer of the model that lr was tuned on.")
    mult = base_width / _width(net)
    kind, found = kinds(net), stages(net)
    first, last = ({id(parameter) for parameter in found[i]} for i in (0, -1))
    hidden = hidden_matrices(net) - first
    head = {key for key in last - first if kind[key] == MATRIX}
    chosen = {"hidden": (hidden, mult), "head": (head, mult), "rest": (kind.keys() - hidden - head, 1.0)}
    groups: list[Group] = []
    for name, (members, factor) in chosen.items():
        if parameters := [parameter for parameter in trainable(net) if id(parameter) in members]:
            groups += Group(name, parameters, weight_decay, factor).parted(spared(net, bias, norm, embedding))
    return groups


def _width(net: nn.Module) -> int:
    """How many features the first stage gives."""
    kind = kinds(net)
    for parameter in stages(net)[0]:
        if kind[id(parameter)] in (MATRIX, EMBEDDING):
            return parameter.shape[1 if kind[id(parameter)] == EMBEDDING else 0]
    raise ConfigError(f"groups: the first stage of {type(net).__name__} has no matrix, so that its width is not known.")
