"""What a LightningModule is, what it overrides, and which of its parts no run can call."""

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from torch import nn

from trainer.lr import ConfigError

_HOMES = ("pytorch_lightning.", "lightning.pytorch.")
SCHEDULER = "lr_scheduler"
_UPDATE = "each update is made by the run, at the rate of the policy"
_MODES = "the run sets the modes of the net"
REPLACED = {
    SCHEDULER: "the policy sets the rates: choose schedule and warmup",
    "lr_scheduler_step": "the policy sets the rates: choose schedule and warmup",
    "optimizer_step": _UPDATE,
    "optimizer_zero_grad": _UPDATE,
    "backward": _UPDATE,
    "configure_gradient_clipping": "the run clips gradients: set trainer.clip",
    "configure_callbacks": "callbacks are in the config: add +callbacks.NAME._target_=CLASS",
    "configure_sharded_model": "the run builds the net: use configure_model",
    "on_validation_model_train": _MODES,
    "on_validation_model_zero_grad": _UPDATE,
    "on_test_model_train": _MODES,
}
"""Parts of a LightningModule that a run replaces, and by what. A module that has one is refused, unless it is named in
`task.step.ignore`."""
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def lightning_class(net: object) -> type | None:
    """The class LightningModule that `net` is an instance of; None for other nets.

    `lightning.pytorch` has the same class as `pytorch_lightning`, under another name and unrelated to it.
    """
    for kind in type(net).__mro__:
        if kind.__name__ == "LightningModule" and kind.__module__.startswith(_HOMES):
            return kind
    return None


def overrides(net: object, name: str) -> bool:
    """Whether a LightningModule has a method of this name that is not Lightning's own, in its class or as its own."""
    kind = lightning_class(net)
    own = getattr(type(net), name, None) is not getattr(kind, name, None)
    return kind is not None and (own or name in vars(net))


def check_step(net: nn.Module, lightning: bool) -> None:
    """Refuse a LightningModule without `task=lightning` and, where `lightning`, any other net."""
    kind = type(net).__name__
    if lightning and lightning_class(net) is None:
        raise ConfigError(f"task=lightning trains a LightningModule, and model makes a {kind}: choose another task.")
    if not lightning and lightning_class(net) is not None:
        raise ConfigError(
            f"model makes a LightningModule, {kind}, and this task would not call its training_step: "
            "take task=lightning."
        )


def check_ignored(ignore: Sequence[str]) -> None:
    """Refuse a name that is not one of `REPLACED`."""
    for name in ignore:
        if name not in REPLACED:
            near = get_close_matches(str(name), REPLACED, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(REPLACED)}."
            raise ConfigError(f"task.step.ignore names {name}, which a run calls or does not know: {hint}")


def check_replaced(net: nn.Module, ignore: Sequence[str]) -> None:
    """Refuse a LightningModule that has a part which a run replaces, unless it is in `ignore`."""
    kind = type(net).__name__
    if not overrides(net, "training_step"):
        raise ConfigError(f"model: {kind} has no training_step: write one, or choose another task.")
    for step in ("training_step", "validation_step", "test_step"):
        if overrides(net, step) and "dataloader_iter" in inspect.signature(getattr(net, step)).parameters:
            raise ConfigError(f"model: {step} of {kind} takes dataloader_iter, and a run gives batches: take a batch.")
    for name, instead in REPLACED.items():
        if name != SCHEDULER and overrides(net, name) and name not in ignore:
            raise ConfigError(
                f"model: {kind} has {name}, but {instead}. task.step.ignore=[{name}] trains without its own."
            )


def summary_of_replaced(net: nn.Module, ignore: Sequence[str], optimizer: str | None) -> list[str]:
    """What a LightningModule has and the run does not use; `optimizer` is the config's, None for the module's own."""
    found = [f"{name} is left out" for name in ignore if name == SCHEDULER or overrides(net, name)]
    if optimizer is not None and overrides(net, "configure_optimizers"):
        found.append(f"configure_optimizers is not called: {optimizer} takes its place")
    if loaders := [name for name in _LOADERS if overrides(net, name)]:
        found.append(f"{', '.join(loaders)} not called: the batches are those of data")
    return found


def positional(step: Any) -> int:
    """How many of batch, batch_idx and dataloader_idx a step is called with."""
    kinds = inspect.Parameter
    parameters = list(inspect.signature(step).parameters.values())
    if any(one.kind is kinds.VAR_POSITIONAL for one in parameters):
        return 2
    given = [one for one in parameters if one.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in given if one.default is kinds.empty]
    return max(min(len(given), 2), len(needed))
