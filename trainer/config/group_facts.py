"""What a plan asks of the parameter groups of a run, by their names."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from trainer.config import lr_policy as policy
from trainer.config.settings import TrainerSettings

if TYPE_CHECKING:
    from trainer.optim.groups import Group

PLAIN = "trainer.optim.groups.decay_groups"
"""The groups that follow from the weight decay alone."""


def facts(groups: "Iterable[Group]") -> dict[str, Any]:
    """What a policy asks of each group."""
    return {group.name: policy.facts(group.lr_mult, group.weight_decay, group.schedule) for group in groups}


def of_model(cfg: DictConfig, settings: TrainerSettings) -> dict[str, Any] | None:
    """The groups of the model itself, for which the data is read; None where the config alone tells them."""
    if cfg.groups._target_ == PLAIN:
        return None
    from trainer.config import components as parts  # late: it needs torch

    net = parts.net(cfg, parts.data(cfg).shape, settings)
    return facts(parts.optimizer(cfg, net)[0])
