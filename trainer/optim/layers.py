"""Groups by depth: the stages of a model from its input to its output."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from trainer.lr import ConfigError, Duration
from trainer.lr.bounds import number, positive
from trainer.optim.groups import Group, trainable
from trainer.optim.kinds import no_decay

UNROLLED = (nn.Sequential, nn.ModuleList)


def stages(net: nn.Module) -> list[list[nn.Parameter]]:
    """The trainable parameters of each stage of `net`, from input to output; each in the first stage that holds it.

    The stages come from the model's method `stages()`: a list of lists of its modules or parameters. In a model without
    one, each child is a stage, in the order of definition, and each child of a Sequential or ModuleList; a child with
    vectors alone, such as a norm, belongs to the stage before it. A parameter in no stage is refused.

    >>> len(stages(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 1))))
    2
    """
    given = getattr(net, "stages", None)
    named = _given(net, given()) if inspect.ismethod(given) else _children(net)
    claimed: set[int] = set()
    found: list[list[nn.Parameter]] = []
    for stage in named:
        fresh = {id(p): p for p in stage if p.requires_grad and id(p) not in claimed}
        claimed |= fresh.keys()
        found.append(list(fresh.values()))
    left = [name for name, p in net.named_parameters() if p.requires_grad and id(p) not in claimed]
    if left:
        raise ConfigError(
            f"groups: {', '.join(left[:5])}{', …' if len(left) > 5 else ''} of {type(net).__name__} "
            f"{'belong' if len(left) > 1 else 'belongs'} to no stage: give the model a method stages() that holds all."
        )
    return found


def layer_decay(
    net: nn.Module,
    weight_decay: float | None,
    lr: float,
    *,
    decay: float = 0.75,
    lowest: float = 0.0,
    bias: bool = False,
    norm: bool = False,
    embedding: bool = False,
) -> list[Group]:
    """Groups `layer_00`, `layer_01`, … from input to output, of n stages: lr_mult_i = max(lowest, decay^(n - 1 - i)).

    The last stage, the head, has multiplier 1. A group holds the parameters with weight decay,
    its companion `layer_00_no_decay` those without.
    Source: Clark et al. 2020 (ELECTRA), arXiv:2003.10555; Bao et al. 2021 (BEiT), arXiv:2106.08254.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    >>> [(group.name, group.lr_mult) for group in layer_decay(net, 0.0, 1.0, decay=0.5)]
    [('layer_00', 0.25), ('layer_01', 0.5), ('layer_02', 1.0)]
    """
    why = "it multiplies the rate from each stage to the one before it; give a value above 0 and up to 1."
    number("groups.decay", positive("groups.decay", decay, why), why, high=1.0)
    number("groups.lowest", lowest, "it is the smallest multiplier, from 0 to 1.", 0.0, 1.0)
    found, undecayed = stages(net), no_decay(net, bias, norm, embedding)
    groups: list[Group] = []
    for i, parameters in enumerate(found):
        mult = max(lowest, decay ** (len(found) - 1 - i))
        if parameters:
            groups += Group(f"layer_{i:02d}", parameters, weight_decay, mult).split_no_decay(undecayed)
    return groups


def backbone_head(
    net: nn.Module,
    weight_decay: float | None,
    lr: float,
    *,
    backbone_mult: float = 0.1,
    freeze: Duration | None = None,
    schedule: Mapping[str, Any] | str = "constant",
    bias: bool = False,
    norm: bool = False,
    embedding: bool = False,
) -> list[Group]:
    """Groups `backbone` and `head`, the last stage: the backbone learns at `backbone_mult` times the rate.

    With `freeze` its rate is 0 for that duration after the warm-up, and then follows `schedule`.

    >>> [group.name for group in backbone_head(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), 0.0, 1.0)]
    ['backbone', 'head']
    """
    number("groups.backbone_mult", backbone_mult, "give 0 to freeze, 1 to leave.", low=0.0)
    head, undecayed = stages(net)[-1], no_decay(net, bias, norm, embedding)
    last = {id(parameter) for parameter in head}
    body = [parameter for parameter in trainable(net) if id(parameter) not in last]
    if not head or not body:
        raise ConfigError(
            f"groups: {type(net).__name__} has no {'backbone before its last stage' if head else 'head of its own'}: "
            "choose groups=patterns, and name the parameters."
        )
    own = None
    if freeze is not None:
        points = [[0, 0.0], [freeze, 1.0]]
        own = {"schedule": "product", "factors": [{"schedule": "piecewise_constant", "points": points}, schedule]}
    groups = [Group("backbone", body, weight_decay, backbone_mult, own), Group("head", head, weight_decay)]
    return [part for group in groups for part in group.split_no_decay(undecayed)]


def _given(net: nn.Module, found: Any) -> list[list[nn.Parameter]]:
    """The parameters of the stages that the model names."""
    known = {id(part) for part in (*net.modules(), *net.parameters())}
    if not isinstance(found, list | tuple) or not found:
        raise ConfigError(f"groups: {type(net).__name__}.stages() returns {found!r}: return a list of stages.")
    for i, stage in enumerate(found):
        if not isinstance(stage, list | tuple) or not all(id(part) in known for part in stage):
            raise ConfigError(
                f"groups: stage {i} of {type(net).__name__}.stages() is not a list of the model's own modules."
            )
    return [
        [p for part in stage for p in ([part] if isinstance(part, nn.Parameter) else part.parameters())]
        for stage in found
    ]


def _children(net: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of the model's children, with containers unrolled; a net without children is one stage."""
    outer = list(net.children()) or [net]
    parts = [part for child in outer for part in (child.children() if isinstance(child, UNROLLED) else [child])]
    made: list[list[nn.Parameter]] = []
    for parameters in (list(part.parameters()) for part in parts):
        if made and all(parameter.ndim < 2 for parameter in parameters):
            made[-1] += parameters
        elif parameters:
            made.append(parameters)
    return made
