"""`optimizer=module`: the optimizer, groups and numbers that a LightningModule makes in `configure_optimizers`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainer.config.batch_scaling import ScaledNumbers
from trainer.config.instantiate import refusing
from trainer.config.model_data import Model, build_model
from trainer.config.settings import Settings
from trainer.config.tuned_hyperparameters import LINKED, is_number
from trainer.engine.clock import Clock
from trainer.engine.lightning_kind import lightning_class
from trainer.engine.lightning_optimizers import joined, named_groups, optimizers_of
from trainer.engine.lr_control import read_setting, write_setting
from trainer.engine.trainer_view import TrainerView
from trainer.lr import ConfigError, Horizon
from trainer.optim.groups import Group

OPTIMIZER = f"{__name__}.module_optimizer"
GROUPS = f"{__name__}.module_groups"


def module_optimizer(params: Any = None, **settings: Any) -> Optimizer:
    """Stands for the optimizer of a LightningModule, which is made by the module itself."""
    raise ConfigError("optimizer=module is made by a LightningModule: choose another optimizer here.")


def module_groups(net: nn.Module, weight_decay: float | None, lr: float) -> list[Group]:
    """Stands for the groups of a LightningModule's optimizer; refused with any other one."""
    raise ConfigError("groups=module are those of optimizer=module: choose other groups.")


def with_module_numbers(settings: Settings, net: nn.Module, length: Horizon) -> Settings:
    """The settings with the numbers of the module's first group in `optimizer`, where that is `optimizer=module`.

    `optimizer.lr` is kept where it is a number. `length` is what the module may ask its trainer for.
    """
    node = settings.curve.optimizer
    if node.get("_target_") != OPTIMIZER:
        return settings
    if lightning_class(net) is None:
        raise ConfigError(f"optimizer=module: model makes a {type(net).__name__}, which has none: choose another one.")
    if settings.curve.groups["_target_"] != GROUPS:
        raise ConfigError("optimizer=module has groups of its own: leave groups out, or choose another optimizer.")
    if more := sorted(set(node) - {"_target_", "_partial_", "lr"}):
        raise ConfigError(f"optimizer.{more[0]} is set by the module with optimizer=module: leave it out.")
    source = SimpleNamespace(
        horizon=length, clock=Clock(), spec=SimpleNamespace(accumulate=settings.trainer.accumulate), _trainer=None
    )
    run = settings.trainer
    known = {"world_size": run.world, "num_devices": run.devices, "num_nodes": run.nodes, "datamodule": None}
    viewed: Any = net
    viewed.trainer = TrainerView(source, known)
    first = _made(settings, net)[0].param_groups[0]
    lr = node.get("lr")
    made = {**node, **_numbers(first), "lr": first["lr"] if lr is None else lr, "class": _kinds(settings, net)}
    curve = replace(settings.curve, optimizer=made)
    return replace(settings, curve=curve, record={**settings.record, "optimizer": made})


def model_of(settings: Settings, numbers: ScaledNumbers, net: nn.Module) -> Model:
    """The net with its groups and optimizer, with the scaled numbers."""
    if settings.curve.optimizer.get("_target_") != OPTIMIZER:
        return build_model(numbers.curve, net, settings.full_batch)
    before, now = settings.curve.optimizer, numbers.curve.optimizer
    rates = {"": float(now["lr"])}

    def make() -> Optimizer:
        optimizers = _made(settings, net)
        named_groups(dict(zip(_names(optimizers), optimizers)), rates)
        for group in (group for one in optimizers for group in one.param_groups):
            _rescale(group, before, now)
        return joined(optimizers)

    with refusing("optimizer"):
        optimizers = _made(settings, net)
        groups = named_groups(dict(zip(_names(optimizers), optimizers)), rates)
        _check_trained(net, groups)
    return Model(net, groups, make)


def _names(optimizers: Sequence[Optimizer]) -> list[str]:
    return [""]


def _made(settings: Settings, net: nn.Module) -> list[Optimizer]:
    step = settings.task.get("step")
    ignore = step.get("ignore", ()) if isinstance(step, Mapping) else ()
    optimizers, _ = optimizers_of(net, ignore)
    if len(optimizers) > 1:
        raise ConfigError(
            f"model: configure_optimizers of {type(net).__name__} gives {len(optimizers)} optimizers, which only a "
            "module that optimizes by hand can step: set self.automatic_optimization = False in it."
        )
    return optimizers


def _kinds(settings: Settings, net: nn.Module) -> str:
    kinds = [type(one) for one in _made(settings, net)]
    return ", ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)


def _numbers(group: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a parameter group, as a config has them."""
    found = {name: value for name, value in group.items() if is_number(value) and name != "lr"}
    betas = group.get("betas")
    plain = isinstance(betas, list | tuple) and all(map(is_number, betas))
    return {**found, "betas": list(betas)} if plain and betas is not None else found


def _rescale(group: dict[str, Any], before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Write the numbers that the batch-size rule has changed."""
    for name in LINKED:
        beta = name in ("beta1", "beta2") and "betas" in group
        if not beta and not is_number(group.get(name)):
            continue
        old, new = (read_setting(dict(node), name) for node in (before, now))
        if new == old:
            continue
        if read_setting(group, name) != old:
            raise ConfigError(
                f"scaling changes {name} from {old:g} to {new:g}, and group {group['name']} of the module has another "
                "one: choose a rule that changes only the rate, such as scaling=linear."
            )
        write_setting(group, name, new)


def _check_trained(net: nn.Module, groups: Sequence[Group]) -> None:
    """Refuse a parameter that two groups have, and a module of which no parameter is trained."""
    claimed: dict[int, str] = {}
    for group in groups:
        for parameter in group.parameters:
            if id(parameter) in claimed:
                raise ConfigError(f"groups: {claimed[id(parameter)]} and {group.name} of the module share a parameter.")
            claimed[id(parameter)] = group.name
    if not any(parameter.requires_grad and id(parameter) in claimed for parameter in net.parameters()):
        raise ConfigError(f"the optimizer of {type(net).__name__} has no parameter of the module that is trained.")
