"""Which average of the weights a run scores, and what does not go with one."""

from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig
from torch.optim import Optimizer

from trainer.config.instantiate import build, expect, refusing
from trainer.engine.averaging import Average, averages, recent
from trainer.engine.module import Module
from trainer.lr import ConfigError, Horizon, Plan


def average(cfg: DictConfig, plan: Plan, optimizer: Optimizer, length: Horizon) -> Average:
    """The average of the config over a run of `length`. Refused beside an optimizer that averages, as is a schedule."""
    make = build(cfg.average, "average", list(cfg.allow))
    with refusing("average"):
        made = expect("average", make(length.reference), Average)
    own = _averaged(optimizer)
    name = str(cfg.optimizer._target_).rpartition(".")[2]
    if own and made.keep is not None:
        raise ConfigError(f"average={made.kind}: {name} averages its weights itself: take average=none.")
    falls = [group for group in own if _falls(plan, group)]
    if falls or (own and cfg.plateau):
        what = f"the rate of group {falls[0]} changes after the warm-up" if falls else "plateau lowers the rate"
        raise ConfigError(
            f"optimizer={name} averages its weights in place of a schedule, but {what}: "
            "take schedule=constant, cooldown=none and plateau=none."
        )
    return replace(made, growth=plan.horizon.growth)


def settle(module: Module, data: pl.LightningDataModule, checkpoint: dict[str, Any]) -> None:
    """Put averaged weights in place where a run that has made all its updates has only its last checkpoint."""
    optimizer = module.configure_optimizers()
    optimizer.load_state_dict(checkpoint["optimizer_states"][0])
    module.averaging.begin(optimizer)
    count = module.spec.average.recalibrate
    module.averaging.swap_in(recent(data.train_dataloader(), module.clock, count, module.spec.micro_batches))


def _averaged(optimizer: Optimizer) -> list[str]:
    """The groups whose optimizer averages their weights in place of a schedule; a plain EMA, as of SPlus, is none."""
    found = []
    for part in getattr(optimizer, "parts", [optimizer]):
        if averages(part):
            found += [group["name"] for group in part.param_groups if "ema_rate" not in group]
    return found


def _falls(plan: Plan, group: str) -> bool:
    """Whether the rate of a group is not one and the same after the warm-up."""
    rates = plan.curves[group][plan.policy.warmup.updates :]
    return len(rates) > 0 and min(rates) != max(rates)
