"""Hyper-parameters beside the learning rate that change with the update: what the `hyper_schedule` config names."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from trainer.cli.messages import nearest
from trainer.config.instantiate import build, refusing
from trainer.config.nested_schedules import expanded
from trainer.lr import ConfigError, Horizon, HyperSchedule, LRPolicy

RUN = {
    "label_smoothing": "task.loss.label_smoothing",
    "dropout": "model.dropout",
    "gradient_noise": "trainer.gradient_noise",
}
"""Settings of the whole run, and where the config has them; all others are settings of parameter groups."""


def hyper_schedules(
    cfg: DictConfig, policy: LRPolicy, length: Horizon, settings: Mapping[str, Mapping[str, float]]
) -> LRPolicy:
    """The policy with a dial for each entry of `hyper_schedule`."""
    if "momentum" in cfg.hyper_schedule and "beta1" in cfg.hyper_schedule and "momentum" not in cfg.optimizer:
        raise ConfigError(
            "hyper_schedule.momentum and hyper_schedule.beta1 are the same number of this optimizer: keep one."
        )
    made = {str(name): _dial(cfg, str(name), length, settings) for name in cfg.hyper_schedule}
    return replace(policy, hyper_schedules=made)


def _dial(cfg: DictConfig, name: str, length: Horizon, settings: Mapping[str, Mapping[str, float]]) -> HyperSchedule:
    key = f"hyper_schedule.{name}"
    if not isinstance(cfg.hyper_schedule[name], DictConfig):
        raise ConfigError(f"{key}={cfg.hyper_schedule[name]} is no rule: give it a _target_, such as trainer.lr.tied.")
    if name in RUN:
        bases = [OmegaConf.select(cfg, RUN[name])]
        home = RUN[name]
    else:
        bases, home = [group.get(name) for group in settings.values()], f"optimizer.{name}"
        if bases[0] is None:
            known = sorted({*RUN, *next(iter(settings.values()))})
            raise ConfigError(f"{key}: there is no such hyper-parameter here: {nearest(name, known)}")
    if not any(bases):
        raise ConfigError(f"{key} would be 0 at every update, for {home}={bases[0]}: set it above zero.")
    node: Any = OmegaConf.to_container(cfg.hyper_schedule[name], resolve=True)
    with refusing(key):
        rule = build(OmegaConf.create(expanded(node, key)), key, list(cfg.allow))(length)
    return HyperSchedule(rule, [float(base) for base in bases])
