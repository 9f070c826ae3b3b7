"""The parts of a run, each built from its config group."""

import inspect
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import Strategy
from torch import nn
from torch.optim import Optimizer

from trainer.checkpoint.io import AtomicCheckpointIO
from trainer.config.arguments import check_names, check_values
from trainer.config.instantiate import build, expect, refusing
from trainer.config.settings import TrainerSettings
from trainer.distributed.environment import environment
from trainer.engine.plateau import PlateauControl
from trainer.engine.sync_norm import synced
from trainer.engine.task import Task
from trainer.lr import ConfigError, Plateau
from trainer.lr.bounds import fraction, number, positive, whole
from trainer.measure.norms import Measurement
from trainer.optim.composite import assembled
from trainer.optim.groups import Group, check_coverage
from trainer.optim.sgd import GradientDescent

OURS = (
    "accelerator devices num_nodes strategy precision logger callbacks plugins max_epochs min_epochs max_steps "
    "min_steps max_time gradient_clip_val accumulate_grad_batches val_check_interval check_val_every_n_epoch "
    "num_sanity_val_steps use_distributed_sampler deterministic barebones default_root_dir fast_dev_run "
    "enable_checkpointing enable_progress_bar enable_model_summary limit_train_batches overfit_batches "
    "log_every_n_steps reload_dataloaders_every_n_epochs"
).split()

CLUSTER = ("WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "SLURM_JOB_ID")
"""Any of these tells that another program starts the processes of a run on many nodes."""

_MOMENTUM = "it is the share of the last step that is kept, from 0 to below 1."


def prepare(settings: TrainerSettings, seed: int) -> None:
    """Seeds, threads and quiet."""
    whole("seed", seed, "give a number from 0 to 4294967295.", low=0, high=2**32 - 1)
    _check_machine(settings)
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric")
    warnings.filterwarnings("error", message="Using a target size")  # a loss of the wrong pairs
    pl.seed_everything(seed, workers=True, verbose=False)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)


def _check_machine(settings: TrainerSettings) -> None:
    """What this machine lacks, told before anything is built."""
    gpu = settings.accelerator != "cpu" and torch.accelerator.is_available()
    if settings.accelerator == "gpu" and not gpu:
        raise ConfigError("trainer.accelerator=gpu, but PyTorch finds no GPU on this machine: take cpu or auto.")
    if settings.precision == "16-mixed" and not gpu:
        raise ConfigError("trainer.precision=16-mixed needs a GPU: take bf16-mixed or 32-true on the CPU.")
    if settings.nodes > 1 and not any(name in os.environ for name in CLUSTER):
        raise ConfigError(f"trainer.nodes={settings.nodes}, but nothing has started the others: use srun or torchrun.")


def data(cfg: DictConfig) -> Any:
    """The data module, read and ready to say what it holds."""
    module = expect("data", build(cfg.data, "data", list(cfg.allow)), pl.LightningDataModule)
    with refusing("data"):
        module.prepare_data()
        module.setup("fit")
    return module


def net(cfg: DictConfig, shape: dict[str, int], settings: TrainerSettings) -> nn.Module:
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
                raise ConfigError(
                    f"model: {cfg.model._target_} needs {name}, but {cfg.data._target_} knows only "
                    f"{', '.join(shape)}: choose a model and data that fit."
                )
        for name in shape.keys() & set(cfg.model):
            raise ConfigError(f"model.{name}={cfg.model[name]} is known from the data, {shape[name]}: leave it out.")
        with refusing("model"):
            factory = factory(**{name: value for name, value in shape.items() if name in wanted})
    expect("model", factory, nn.Module)
    if settings.sync_batchnorm:
        factory = synced(factory, settings.accelerator != "cpu" and torch.accelerator.is_available())
    if settings.channels_last:
        factory = factory.to(memory_format=torch.channels_last)
    if settings.compile:
        factory.compile()
    return factory


def task(cfg: DictConfig, shape: dict[str, int]) -> Task:
    """What the model is asked for; a loss that can teach it nothing is refused."""
    made = expect("task", build(cfg.task, "task", list(cfg.allow)), Task)
    smoothing = getattr(made.loss, "label_smoothing", 0.0)
    fraction("task.loss.label_smoothing", smoothing, "it is the share of a target that is spread over all classes.")
    if isinstance(made.loss, nn.CrossEntropyLoss) and shape.get("classes") == 1:
        raise ConfigError(
            "task.loss: the cross entropy over the 1 class of this data is always 0: take task=regression."
        )
    return made


def optimizer(cfg: DictConfig, model: nn.Module) -> tuple[list[Group], Callable[[], Optimizer]]:
    """The named parameter groups of the model, and what makes the optimizer of them."""
    main = build(cfg.optimizer, "optimizer", list(cfg.allow))
    if "momentum" in cfg.optimizer and number("optimizer.momentum", cfg.optimizer.momentum, _MOMENTUM, 0, 1) == 1:
        raise ConfigError(f"optimizer.momentum=1 never forgets: {_MOMENTUM}")
    if "lr" not in cfg.optimizer:
        raise ConfigError("optimizer.lr is not set: the policy starts from it.")
    lr = positive("optimizer.lr", cfg.optimizer.lr, "the learning rate scales each update; try 0.001 to 0.1.")
    split = build(cfg.groups, "groups", list(cfg.allow))
    with refusing("groups"):
        groups = split(model, cfg.optimizer.get("weight_decay"), lr)
        check_coverage(model, groups)
    with refusing("optimizer"):
        made = expect("optimizer", assembled(groups, main), Optimizer)
    if isinstance(made, GradientDescent) and cfg.trainer.accumulate != "all":
        raise ConfigError("optimizer=gd takes the whole training set in each update: set trainer.accumulate=all.")
    return groups, lambda: assembled(groups, main)


def plateau(cfg: DictConfig, fresh: bool) -> list[pl.Callback]:
    """The callback that lowers the learning rate where a metric says so, if the config has one.

    `fresh`: it begins at 1, whatever the checkpoint says.
    """
    if not cfg.plateau:
        return []
    return [PlateauControl(expect("plateau", build(cfg.plateau, "plateau", list(cfg.allow)), Plateau), fresh)]


def measurement(cfg: DictConfig) -> Measurement | None:
    """What is measured of updates beside the loss, if anything is."""
    if not cfg.measure:
        return None
    return expect("measure", build(cfg.measure, "measure", list(cfg.allow)), Measurement)


def trainer(
    cfg: DictConfig, settings: TrainerSettings, folder: Path, strategy: Strategy | str, *more: pl.Callback
) -> pl.Trainer:
    """Lightning's trainer, which runs the loop; what decides the updates is ours."""
    for key in settings.lightning:
        if key in OURS:
            raise ConfigError(
                f"trainer.lightning.{key} is decided elsewhere: see the keys of trainer, logger, callbacks."
            )
    check_names("trainer.lightning", pl.Trainer, settings.lightning)
    check_values("trainer.lightning", pl.Trainer, settings.lightning)
    loggers = [_logger(f"logger.{name}", node, list(cfg.allow), folder) for name, node in cfg.logger.items()]
    callbacks = [
        expect(f"callbacks.{name}", build(node, f"callbacks.{name}", list(cfg.allow)), pl.Callback)
        for name, node in cfg.callbacks.items()
    ]
    with refusing("trainer"):
        return pl.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            strategy=strategy,
            precision=settings.precision,  # type: ignore[arg-type]
            logger=loggers,
            callbacks=[*callbacks, *more],
            plugins=[AtomicCheckpointIO(), *environment()],
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


def _logger(key: str, node: Any, allow: list[str], folder: Path) -> Logger:
    made = build(node, key, allow)
    with refusing(key):
        return expect(key, made(str(folder)) if node.get("_partial_") else made, Logger)
