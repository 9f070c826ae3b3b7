"""Groups by depth: a stage of the model has its own rate."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainer.lr import ConfigError, Duration
from trainer.lr.bounds import number, positive
from trainer.lr.horizon import multiple
from trainer.optim.groups import Group, trainable
from trainer.optim.kinds import no_decay
from trainer.optim.stages import several_stages, stages


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
    found, undecayed = several_stages(net, "layer_decay"), no_decay(net, bias, norm, embedding)
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
    own = None if freeze is None else _frozen_for(freeze, schedule)
    groups = [Group("backbone", body, weight_decay, backbone_mult, own), Group("head", head, weight_decay)]
    return [part for group in groups for part in group.split_no_decay(undecayed)]


def gradual_unfreezing(
    net: nn.Module,
    weight_decay: float | None,
    lr: float,
    *,
    every: Duration = "1ep",
    decay: float = 1.0,
    schedule: Mapping[str, Any] | str = "constant",
    bias: bool = False,
    norm: bool = False,
    embedding: bool = False,
) -> list[Group]:
    """Groups `layer_00`, `layer_01`, … of n stages; stage i has rate 0 for (n - 1 - i) · `every` after the warm-up.

    So the head learns from the start, and one more stage after each `every`; each then follows `schedule`, times
    decay^(n - 1 - i).
    Source: Howard & Ruder 2018 (ULMFiT), arXiv:1801.06146, sec. 3.3, with decay = 1 / 2.6 as in sec. 3.2.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    >>> for group in gradual_unfreezing(net, 0.0, 1.0, every="2ep"):
    ...     print(group.name, group.schedule and group.schedule["factors"][0]["points"])
    layer_00 [[0, 0.0], ['4ep', 1.0]]
    layer_01 [[0, 0.0], ['2ep', 1.0]]
    layer_02 None
    """
    why = "it multiplies the rate from each stage to the one before it; give a value above 0 and up to 1."
    number("groups.decay", positive("groups.decay", decay, why), why, high=1.0)
    found, undecayed = several_stages(net, "gradual_unfreezing"), no_decay(net, bias, norm, embedding)
    groups: list[Group] = []
    for i, parameters in enumerate(found):
        later = len(found) - 1 - i
        own = _frozen_for(multiple(every, later, "groups.every"), schedule) if later else None
        if parameters:
            groups += Group(f"layer_{i:02d}", parameters, weight_decay, decay**later, own).split_no_decay(undecayed)
    return groups


def _frozen_for(duration: Duration, schedule: Mapping[str, Any] | str) -> dict[str, Any]:
    """The config of a schedule that is 0 for a duration, and then follows `schedule`."""
    points = [[0, 0.0], [duration, 1.0]]
    return {"schedule": "product", "factors": [{"schedule": "piecewise_constant", "points": points}, schedule]}
