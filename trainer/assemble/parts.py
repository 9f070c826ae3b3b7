"""The parts of a run, each built from its config group."""

import inspect
import logging
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import nn
from torch.optim import Optimizer

from trainer.assemble.curve import Run
from trainer.assemble.targets import build, refusing
from trainer.checkpoint import AtomicCheckpointIO
from trainer.lr import Refusal
from trainer.lr.bounds import whole
from trainer.optim.groups import Group, decay_groups

OURS = (
    "accelerator devices num_nodes strategy precision logger callbacks plugins max_epochs min_epochs max_steps "
    "min_steps max_time gradient_clip_val accumulate_grad_batches val_check_interval check_val_every_n_epoch "
    "num_sanity_val_steps use_distributed_sampler deterministic barebones default_root_dir fast_dev_run "
    "enable_checkpointing enable_progress_bar enable_model_summary"
).split()


def prepare(settings: Run, seed: int) -> None:
    """Seeds, threads and quiet."""
    whole("seed", seed, "give a number from 0 to 4294967295.", low=0)
    if seed >= 2**32:
        raise Refusal(f"seed={seed} is out of range: give a number from 0 to 4294967295.")
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")
    pl.seed_everything(seed, workers=True, verbose=False)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)


def data(cfg: DictConfig) -> Any:
    """The data module, read and ready to say what it holds."""
    module = build(cfg.data, "data", list(cfg.allow))
    with refusing("data"):
        module.prepare_data()
        module.setup("fit")
    return module


def net(cfg: DictConfig, shape: dict[str, int], settings: Run) -> nn.Module:
    """The model, given what it asks for of the data's shape."""
    factory = build(cfg.model, "model", list(cfg.allow))
    if not isinstance(factory, nn.Module):
        wanted = inspect.signature(factory).parameters
        for name, parameter in wanted.items():
            if (
                parameter.default is parameter.empty
                and parameter.kind is not parameter.VAR_KEYWORD
                and name not in shape
            ):
                raise Refusal(
                    f"model: {cfg.model._target_} needs {name}, but {cfg.data._target_} knows only "
                    f"{', '.join(shape)}: choose a model and data that fit."
                )
        with refusing("model"):
            factory = factory(**{name: value for name, value in shape.items() if name in wanted})
    if settings.channels_last:
        factory = factory.to(memory_format=torch.channels_last)
    if settings.compile:
        factory.compile()
    return factory


def optimizer(cfg: DictConfig, model: nn.Module) -> tuple[list[Group], Callable[..., Optimizer]]:
    """The named parameter groups of the model, and what makes the optimizer from them."""
    factory = build(cfg.optimizer, "optimizer", list(cfg.allow))
    groups = decay_groups(model, cfg.optimizer.get("weight_decay"))
    with refusing("optimizer"):
        factory([group.options() for group in groups])
    return groups, factory


def trainer(cfg: DictConfig, settings: Run, folder: Path, *more: pl.Callback) -> pl.Trainer:
    """Lightning's trainer, which runs the loop; what decides the updates is ours."""
    for key in settings.lightning:
        if key in OURS:
            raise Refusal(f"trainer.lightning.{key} is decided elsewhere: see the keys of trainer, logger, callbacks.")
    loggers = []
    for name, node in (cfg.logger or {}).items():
        logger = build(node, f"logger.{name}", list(cfg.allow))
        loggers.append(logger(str(folder)) if node.get("_partial_") else logger)
    callbacks = [build(node, f"callbacks.{name}", list(cfg.allow)) for name, node in (cfg.callbacks or {}).items()]
    with refusing("trainer"):
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy=_strategy(settings),
            precision=settings.precision,  # type: ignore[arg-type]
            logger=loggers,
            callbacks=[*callbacks, *more],
            plugins=[AtomicCheckpointIO()],
            max_epochs=-1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            deterministic=settings.deterministic,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(folder),
            **settings.lightning,
        )


def _strategy(settings: Run) -> Strategy | str:
    """One process, or several that exchange gradients and do nothing else behind the update's back."""
    if settings.world == 1 and settings.strategy == "auto":
        return "auto"
    return DDPStrategy(gradient_as_bucket_view=True, broadcast_buffers=False, timeout=timedelta(minutes=5))
