"""`optimizer=module`: the optimizer, groups and numbers that a LightningModule makes in `configure_optimizers`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from torch import nn
from torch.optim import Optimizer

from trainer.config.adascale_config import is_adascale
from trainer.config.batch_scaling import ScaledNumbers
from trainer.config.instantiate import refusing
from trainer.config.model_data import Model, build_model
from trainer.config.settings import Settings
from trainer.config.tuned_hyperparameters import LINKED, is_number
from trainer.engine.clock import Clock
from trainer.engine.lightning_kind import lightning_class
from trainer.engine.lightning_optimizers import joined, named_groups, optimizers_of
from trainer.engine.manual_update import Turn, named_turns
from trainer.engine.trainer_view import TrainerView
from trainer.lr import ConfigError, Horizon
from trainer.optim.groups import Group
from trainer.optim.policy_groups import read_setting, write_setting

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
    check_by_hand(settings, net)
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
    loaders = dict.fromkeys(("datamodule", "train_dataloader", "val_dataloaders"))  # not there yet
    known = {**loaders, "world_size": run.world, "num_devices": run.devices, "num_nodes": run.nodes}
    viewed: Any = net
    viewed.trainer = TrainerView(source, known)
    optimizers = _made(settings, net)
    first, lr = optimizers[0].param_groups[0], node.get("lr")
    turn = next(iter(turns_of(settings, len(optimizers)).values()))
    own = first["lr"] if turn.lr is None else turn.lr
    made = {**_numbers(first), "lr": own if lr is None else lr, "class": _kinds(settings, net)}
    curve = replace(settings.curve, optimizer={**node, **made})
    record = {**settings.record, "optimizer": {**settings.record["optimizer"], **made}}
    return replace(settings, curve=curve, record=record)


def model_of(settings: Settings, numbers: ScaledNumbers, net: nn.Module) -> Model:
    """The net with its groups and optimizer, with the scaled numbers."""
    if settings.curve.optimizer.get("_target_") != OPTIMIZER:
        return build_model(numbers.curve, net, settings.full_batch)
    before, now = settings.curve.optimizer, numbers.curve.optimizer

    def make() -> Optimizer:
        optimizers = _made(settings, net)
        _grouped(settings, optimizers)
        for group in (group for one in optimizers for group in one.param_groups):
            _rescale(group, before, now)
        return joined(optimizers)

    with refusing("optimizer"):
        groups = _grouped(settings, _made(settings, net))
        _check_trained(net, groups)
    return Model(net, groups, make)


def check_by_hand(settings: Settings, net: nn.Module) -> None:
    """Refuse what does not work with a LightningModule that optimizes by hand, and names of optimizers with others."""
    kind, named, run = type(net).__name__, _step(settings).get("optimizers"), settings.trainer
    if lightning_class(net) is None or net.automatic_optimization:
        if named:
            raise ConfigError(f"task.step.optimizers is for modules that optimize by hand, and {kind} does not.")
        return
    curve = settings.curve
    asked = [
        (curve.optimizer.get("_target_") != OPTIMIZER, "has its own optimizers", "optimizer=module"),
        (run.accumulate != 1, f"sees each batch (trainer.accumulate={run.accumulate})", "trainer.accumulate=1"),
        (bool(curve.batch_schedule), "sees each batch", "batch_schedule=none"),
        (is_adascale(curve.scaling), "has no gradients of a whole update", "another scaling"),
        (bool(settings.measure), "has no gradients of a whole update", "measure=none"),
        (bool(curve.hyper_schedule), "has several clocks", "hyper_schedule=none"),
        (run.gradients.sam is not None, "makes its gradients itself", "trainer.sam=null"),
        (run.precision == "16-mixed", "scales no losses", "trainer.precision=bf16-mixed"),
    ]
    for there, why, instead in asked:
        if there:
            raise ConfigError(f"model: {kind} optimizes by hand and {why}: take {instead}.")


def turns_of(settings: Settings, count: int) -> dict[str, Turn]:
    """The names of `count` optimizers of a module, and how often each steps."""
    given = _step(settings).get("optimizers") or {}
    return named_turns({name: Turn.of(f"task.step.optimizers.{name}", one) for name, one in given.items()}, count)


def summary_of_turns(settings: Settings, net: nn.Module) -> list[str]:
    """How often each optimizer of a module that optimizes by hand steps; empty for others."""
    if net.automatic_optimization:
        return []
    turns = turns_of(settings, len(_made(settings, net))).items()
    return [f"{name} steps once in {turn.every} batches" for name, turn in turns]


def _step(settings: Settings) -> Mapping[str, Any]:
    step = settings.task.get("step")
    return step if isinstance(step, Mapping) else {}


def _grouped(settings: Settings, optimizers: Sequence[Optimizer]) -> list[Group]:
    """The groups of the module's optimizers, named by these where there are several or they have names."""
    turns = turns_of(settings, len(optimizers))
    names = list(turns) if len(turns) > 1 or _step(settings).get("optimizers") else [""]
    rates = {name: turn.lr for name, turn in zip(names, turns.values()) if turn.lr is not None}
    return named_groups(dict(zip(names, optimizers)), rates)


def _made(settings: Settings, net: nn.Module) -> list[Optimizer]:
    optimizers, _ = optimizers_of(net, _step(settings).get("ignore", ()))
    if len(optimizers) > 1 and net.automatic_optimization:
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
