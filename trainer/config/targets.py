"""Which classes and functions a `_target_` may name, group by group.

Its text is checked before anything is imported, and what it finds before it is called.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.cli.allow import VARIABLE, never_allowed
from trainer.lr import ConfigError

MODULE = "torch.nn.modules.module.Module"
OPTIMIZER = "torch.optim.optimizer.Optimizer"
CALLBACK = "pytorch_lightning.callbacks.callback.Callback"
LOGGER = "pytorch_lightning.loggers.logger.Logger"
DATA_MODULE = "pytorch_lightning.core.datamodule.LightningDataModule"


@dataclass(frozen=True)
class Package:
    """A package whose classes a group may name: those of these kinds, or all; and functions of these modules."""

    name: str
    kinds: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()


CURVES = (Package("trainer.lr", functions=("trainer.lr",)),)
OPTIMIZERS = (
    Package("trainer.optim", (OPTIMIZER,)),
    Package("trainer.config.module_optimizer", functions=("trainer.config.module_optimizer",)),
    Package("torch.optim", (OPTIMIZER,)),
    Package("pytorch_optimizer", (OPTIMIZER,)),
)
NETS = (
    Package("models", functions=("models",)),
    Package("torch.nn", (MODULE,), ("torch.nn.functional", "torch.nn.init", "torch.nn.utils")),
)
STEPS = ("task", "step", "losses", "lightning_step", "distillation")
ENGINE = tuple(Package(f"trainer.engine.{name}") for name in STEPS)
METRICS = Package("torchmetrics", (MODULE,), ("torchmetrics.functional",))
GROUPS: dict[str, tuple[Package, ...]] = {
    "data": (Package("data", functions=("data",)),),
    "model": NETS,
    "adapter": (Package("models", functions=("models",)),),
    "task": (*ENGINE, METRICS, *NETS),
    "optimizer": OPTIMIZERS,
    "groups": (Package("trainer.optim", (OPTIMIZER,), ("trainer.optim",)), *OPTIMIZERS[1:], *CURVES),
    **dict.fromkeys(("scaling", "warmup", "schedule", "group_schedule", "batch_schedule", "cooldown"), CURVES),
    **dict.fromkeys(("hyper_schedule", "plateau", "guard"), CURVES),
    "average": (Package("trainer.engine.averaging", functions=("trainer.engine.averaging",)),),
    "measure": (Package("trainer.measure.norms"),),
    "logger": (Package("trainer.log", (LOGGER,)), Package("pytorch_lightning.loggers", (LOGGER,))),
    "callbacks": (Package("trainer", (CALLBACK,)), Package("pytorch_lightning.callbacks", (CALLBACK,))),
}
"""The packages that each group of the config may name, at any depth, beside those of `allow`."""
NEEDED = {"model": MODULE, "optimizer": OPTIMIZER, "callbacks.*": CALLBACK, "logger.*": LOGGER, "data": DATA_MODULE}
"""The kind of class that must be named at these keys, also one of a package that the user allows."""
ONLY_CLASSES = ("callbacks.*", "logger.*")
"""Keys at which no function may be named."""
ALL = tuple(dict.fromkeys(package.name for packages in GROUPS.values() for package in packages))


def check_text(path: str, target: Any, allow: Sequence[str]) -> None:
    """Refuse a `_target_` outside the packages that its group and `allow` name. Nothing is imported."""
    if target is None:
        raise ConfigError(f"{path} has no _target_: name its class or function by {path}._target_=MODULE.NAME.")
    if not isinstance(target, str) or "." not in target or not all(map(str.isidentifier, target.split("."))):
        raise ConfigError(f"{path}._target_={target} names no class: write it as package.module.Class.")
    if not _allowed(path, target, allow):
        raise ConfigError(_why_refused(path, target, target, allow))
    if private := [part for part in target.split(".") if part.startswith("_") and part != "__main__"]:
        raise ConfigError(f"{path}._target_={target}: {private[0]} is private: name a public class or function.")


def check_found(path: str, target: str, found: Callable[..., Any], allow: Sequence[str]) -> None:
    """Refuse what a `_target_` has found where its home or its kind is not allowed there. Nothing is called."""
    home = f"{getattr(found, '__module__', None)}.{target.rpartition('.')[2]}"
    if not _allowed(path, home, allow):
        raise ConfigError(_why_refused(path, target, home, allow))
    owner = found.__self__ if inspect.ismethod(found) else found
    package = None if _within(home, allow) else next(one for one in _packages(path) if _within(home, [one.name]))
    if package is not None and not _of_package(package, home, owner):
        what = "class" if inspect.isclass(owner) else "function"
        of = " or ".join(kind.rpartition(".")[2] for kind in package.kinds) or "class"
        raise ConfigError(f"{path}._target_={target} is a {what} that no config may call there: name a {of}.")
    _check_kind(path, target, owner)


def _of_package(package: Package, home: str, owner: Any) -> bool:
    if inspect.isclass(owner):
        return not package.kinds or _is(owner, package.kinds)
    if not inspect.isfunction(owner):
        return False
    return _within(home, package.functions) and not (home.startswith("data.") and _harmful(owner))


def _harmful(function: Callable[..., Any]) -> bool:
    """Whether a function of `data` is a part of how Cadence reads data, and none that a config is meant to name."""
    module = function.__module__
    shipped = str(getattr(sys.modules.get("data.module"), "__file__", "")).removesuffix("module.py")
    own = str(getattr(sys.modules.get(module), "__file__", "")).startswith(shipped) if shipped else False
    return own and module not in ("data.sampling", "data.size")


def _check_kind(path: str, target: str, owner: Any) -> None:
    """Refuse a class of another kind than the one that is needed at `path`."""
    group, _, rest = path.partition(".")
    key = group if not rest else f"{group}.*" if "." not in rest else ""
    if (needed := NEEDED.get(key)) is None:
        return
    name = needed.rpartition(".")[2]
    if not inspect.isclass(owner):
        if key in ONLY_CLASSES:
            raise ConfigError(f"{path}._target_={target} is a function, but a {name} is needed: name its class.")
        return
    if _is(owner, (needed,)):
        return
    if key == "data":
        raise ConfigError(
            f"data._target_ makes a {owner.__name__}, but a DataModule is needed: make it a subclass of "
            "data.module.DataModule."
        )
    raise ConfigError(f"{path}._target_ makes a {owner.__name__}, but a {name} is needed: name another.")


def _is(kind: type, bases: Sequence[str]) -> bool:
    return any(f"{base.__module__}.{base.__qualname__}" in bases for base in kind.__mro__)


def _packages(path: str) -> tuple[Package, ...]:
    return GROUPS.get(path.partition(".")[0], ())


def _allowed(path: str, name: str, allow: Sequence[str]) -> bool:
    return _within(name, [*allow, *(package.name for package in _packages(path))])


def _within(name: str, packages: Sequence[str]) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)


def _why_refused(path: str, target: str, home: str, allow: Sequence[str]) -> str:
    """Why a target is refused, and what to do; never the advice to allow a package that is never allowed."""
    said = f"{path}._target_={target}" + (f" (that is {home})" if home != target else "")
    root, group = home.partition(".")[0], path.partition(".")[0]
    if home == target and root not in sys.modules and importlib.util.find_spec(root) is None:  # imports nothing
        return f"{said}: there is no package or module {root}: check its spelling, and the folder in which you are."
    known = ", ".join(package.name for package in _packages(path)) or "no package"
    if _within(home, ALL):
        return f"{said} is not in an allowed package: {group} takes those of {known}, and yours by allow."
    if never_allowed(root):
        return f"{said} is not in an allowed package, and {root} cannot be one: a config must not call it."
    trusted = ",".join(dict.fromkeys([*allow, root]))
    return (
        f"{said} is not in an allowed package: if you know its code, trust it by allow=[{trusted}] in the command, "
        f"or by {VARIABLE}={trusted} in your shell."
    )
