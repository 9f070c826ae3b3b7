"""From a config and its plan to the recipe that a net is trained by."""

from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer

from trainer.config import adascale_config as pace
from trainer.config import components as parts
from trainer.config.averaging import average
from trainer.config.settings import TrainerSettings, global_batch
from trainer.engine.attribute_setters import GradientNoise
from trainer.engine.train_spec import TrainSpec
from trainer.lr import Horizon, Plan
from trainer.measure.adascale import AdaScale
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
    seen, gains = parts.observe(cfg), pace.gains(cfg, global_batch(cfg, settings))
    if seen is not None and seen.noise is not None:
        pace.check_measurable("measure=noise", settings)
    return TrainSpec(
        plan.policy,
        length,
        optimizer,
        groups,
        settings.clip,
        settings.log_every,
        GradientNoise(settings.gradient_noise, cfg.seed) if settings.gradient_noise else None,
        {"config": OmegaConf.to_container(cfg, resolve=True), "curve_history": segments},
        seen,
        agc=settings.agc,
        sam=settings.sam,
        average=average(cfg, plan, optimizer(), length),
        accumulate=settings.accumulate,
        micro_batch=cfg.data.batch_size,
        adascale=AdaScale(**gains) if gains is not None else None,
        noise_decay=seen.noise if seen is not None else None,
    )
