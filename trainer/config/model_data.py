"""The data, the net, and the optimizer with its parameter groups, on which a plan may depend."""

import inspect
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn
from torch.optim import Optimizer

from trainer.config.instantiate import expect, instantiate, refusing
from trainer.config.lr_policy import GroupFacts, Groups
from trainer.config.prepared_net import Origin
from trainer.config.settings import CurveSettings, Settings, TrainerSettings
from trainer.distributed.launch.launcher import started_by
from trainer.engine.lightning_kind import overrides
from trainer.lr import ConfigError
from trainer.lr.bounds import fraction, integer, number, positive
from trainer.optim.composite import assembled
from trainer.optim.groups import Group, check_coverage
from trainer.optim.sgd import GradientDescent

OF_DATA = ("shape", "train_samples", "follow", "claims", "check_run")
"""What a run needs of its data beside Lightning's methods; `data.module.DataModule` has it."""

KNOWN = 4
_known: dict[str, Any] = {}
_sharing: list[bool] = []
_MOMENTUM = "it is the share of the last step that is kept, from 0 to below 1."


@dataclass(frozen=True)
class Model:
    """The net, its parameter groups, a function that makes their optimizer, and what the net starts from."""

    net: nn.Module
    groups: list[Group]
    optimizer: Callable[[], Optimizer]
    origin: Origin = Origin()


def prepare(settings: TrainerSettings, seed: int) -> None:
    """Set seeds, threads, and the levels of logs and warnings."""
    integer("seed", seed, "give a number from 0 to 4294967295.", low=0, high=2**32 - 1)
    _check_machine(settings)
    _quieten()
    warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|lightning\.")
    warnings.filterwarnings("error", message="Using a target size")  # shapes that broadcast give a wrong loss
    pl.seed_everything(seed, workers=True, verbose=False)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)


def _quieten() -> None:
    """Without Lightning's lines about the machine, in either of its packages, which share one way to log them."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _check_machine(settings: TrainerSettings) -> None:
    """Refuse settings that this machine cannot run, before anything is built."""
    gpu = settings.accelerator != "cpu" and torch.accelerator.is_available()
    if settings.accelerator == "gpu" and not gpu:
        raise ConfigError("trainer.accelerator=gpu, but PyTorch finds no GPU on this machine: take cpu or auto.")
    if settings.precision == "16-mixed" and not gpu:
        raise ConfigError("trainer.precision=16-mixed needs a GPU: take bf16-mixed or 32-true on the CPU.")
    if settings.nodes > 1 and not started_by():
        raise ConfigError(f"trainer.nodes={settings.nodes}, but nothing has started the others: use srun or torchrun.")


def read_data(settings: Settings, saved: Mapping[str, Any] | None = None, purpose: str = "train") -> Any:
    """The data module, with its data read. What is drawn meanwhile, as a random split, follows from the seed alone.

    Where the checkpoint `saved` has what data of this class computed from the training samples, this is taken.
    `purpose` is train, test or predict, as `data.module.DataModule` has it.
    """
    shares = bool(_sharing) and not saved
    key = json.dumps([settings.data, settings.seed, settings.allow, purpose], default=str) if shares else ""
    if key in _known:
        return copy(_known[key])
    with isolate_rng(), _seeded(settings.seed):
        made = _read_data(settings, saved or {}, purpose)
    if shares and _in_memory(made):
        _known[key] = copy(made)
        while len(_known) > KNOWN:
            del _known[next(iter(_known))]
    return made


def share_data() -> None:
    """From now on runs of this process with equal data settings and seeds share the samples that they hold in memory.

    Those of the last `KNOWN` settings are kept.
    """
    _sharing.append(True)


def _in_memory(data: Any) -> bool:
    """Whether no sample is read later, and none has a state."""
    splits = [source for source in getattr(data, "splits", [None]) if source is not None]
    return bool(splits) and all(hasattr(source, "has_target") for source in splits)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the generators of torch, numpy and Python, without what Lightning notes of that in the environment."""
    before = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    try:
        pl.seed_everything(seed, workers=True, verbose=False)
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _read_data(settings: Settings, saved: Mapping[str, Any], purpose: str) -> Any:
    module = instantiate(settings.data, "data", settings.allow)
    kind = type(module)
    if not isinstance(module, pl.LightningDataModule) or not all(hasattr(kind, name) for name in OF_DATA):
        raise ConfigError(
            f"data._target_ makes a {kind.__name__}, but a DataModule is needed: make it a subclass of "
            "data.module.DataModule."
        )
    module.purpose = purpose  # type: ignore[attr-defined]
    state = saved.get(kind.__qualname__)
    with refusing("data"):
        if isinstance(state, Mapping) and state.get("fitted") is not None:
            module.load_state_dict(dict(state))
        module.prepare_data()
        module.setup("fit")
    return module


def build_net(settings: Settings, shape: dict[str, int]) -> nn.Module:
    """The model, made with those numbers of the data's shape that it takes."""
    factory = instantiate(settings.model, "model", settings.allow)
    if not isinstance(factory, nn.Module) and callable(factory):
        wanted = inspect.signature(factory).parameters
        for name, parameter in wanted.items():
            if (
                parameter.default is parameter.empty
                and parameter.kind is not parameter.VAR_KEYWORD
                and name not in shape
            ):
                raise ConfigError(
                    f"model: {settings.model['_target_']} needs {name}, but {settings.data['_target_']} knows only "
                    f"{', '.join(shape)}: choose a model and data that fit."
                )
        for name in shape.keys() & set(settings.model):
            raise ConfigError(
                f"model.{name}={settings.model[name]} is known from the data, {shape[name]}: leave it out."
            )
        with refusing("model"):
            factory = factory(**{name: value for name, value in shape.items() if name in wanted})
    expect("model", factory, nn.Module)
    _quieten()  # again: a net may have imported the other package of Lightning
    if overrides(factory, "configure_model"):
        factory.configure_model()
    return factory


def build_model(curve: CurveSettings, net: nn.Module, full_batch: bool) -> Model:
    """The net with its named parameter groups, and a function that makes their optimizer.

    `full_batch`: whether each update takes the whole training set, which gradient descent requires.
    """
    options = curve.optimizer
    main = instantiate(options, "optimizer", curve.allow)
    if "momentum" in options and number("optimizer.momentum", options["momentum"], _MOMENTUM, 0, 1) == 1:
        raise ConfigError(f"optimizer.momentum=1 never forgets: {_MOMENTUM}")
    if "dampening" in options:
        fraction("optimizer.dampening", options["dampening"], "it is the share of a gradient that momentum leaves out.")
    if "lr" not in options:
        raise ConfigError("optimizer.lr is not set: the policy starts from it.")
    lr = positive("optimizer.lr", options["lr"], "the learning rate scales each update; try 0.001 to 0.1.")
    split = instantiate(curve.groups, "groups", curve.allow)
    with refusing("groups"):
        groups = split(net, options.get("weight_decay"), lr)
        check_coverage(net, groups)
    with refusing("optimizer"):
        made = expect("optimizer", assembled(groups, main), Optimizer)
    if isinstance(made, GradientDescent) and not full_batch:
        raise ConfigError("optimizer=gd takes the whole training set in each update: set trainer.accumulate=all.")
    return Model(net, groups, lambda: assembled(groups, main))


def facts_of(groups: list[Group]) -> Groups:
    """What a policy needs of each parameter group."""
    return {group.name: GroupFacts(group.lr_mult, group.weight_decay, group.schedule) for group in groups}
