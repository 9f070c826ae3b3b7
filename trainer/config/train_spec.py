"""From a config and its plan to the spec that a net is trained by."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer

from trainer.config import adascale_config as pace
from trainer.config import components as parts
from trainer.config.averaging import average
from trainer.config.settings import TrainerSettings, global_batch
from trainer.engine.train_spec import TrainSpec
from trainer.lr import Horizon, Plan
from trainer.measure.adascale import AdaScale
from trainer.measure.observers import ObserverSpec
from trainer.optim.groups import Group


def made(
    cfg: DictConfig,
    settings: TrainerSettings,
    plan: Plan,
    length: Horizon,
    optimizer: Callable[[], Optimizer],
    groups: Sequence[Group],
    segments: Sequence[Any],
) -> TrainSpec:
    """The spec of a run of `length` in its own updates, along the curve of `plan`; `segments`: its curve history."""
    measurement, gains = parts.measurement(cfg), pace.gains(cfg, global_batch(cfg, settings))
    if measurement is not None and measurement.noise is not None:
        pace.check_measurable("measure=noise", settings)
    adascale = AdaScale(**gains) if gains is not None else None
    names = tuple(group.name for group in groups)
    return TrainSpec(
        policy=plan.policy,
        horizon=length,
        optimizer=optimizer,
        groups=groups,
        observers=ObserverSpec(names, cfg.data.batch_size, length.batch_size, measurement, adascale),
        gradients=replace(settings.gradients, seed=cfg.seed),
        average=average(cfg, plan, optimizer(), length),
        accumulate=settings.accumulate,
        micro_batch=cfg.data.batch_size,
        log_every=settings.log_every,
        origin={"config": OmegaConf.to_container(cfg, resolve=True), "curve_history": segments},
    )
