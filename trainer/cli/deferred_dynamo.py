"""The compiler of PyTorch, imported only where a net is compiled.

Lightning asks whether a net is an `OptimizedModule`, each optimizer wraps its methods with `disable` and calls
`graph_break`, and processes that exchange gradients clear a cache and ask for a mode. For that `torch._dynamo` is
imported, a quarter of the time in which a process starts. Here it has these names alone, and runs its own code as soon
as somebody asks for anything else, such as `torch.compile`.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

DYNAMO = "torch._dynamo"


class _Optimized(type):
    """The compiled nets are instances of this."""

    def __instancecheck__(cls, instance: object) -> bool:
        dynamo = sys.modules[DYNAMO]
        return not isinstance(dynamo, DeferredDynamo) and isinstance(instance, dynamo.OptimizedModule)


class OptimizedModule(metaclass=_Optimized):
    """Stands for `torch._dynamo.OptimizedModule`."""


def disable(fn: Callable[..., Any], *options: Any, **more: Any) -> Callable[..., Any]:
    """`fn`, which is not compiled: with the options of `torch._dynamo.disable` as soon as that is there."""
    disabled: Callable[..., Any] | None = None

    def run(*args: Any, **kwargs: Any) -> Any:
        nonlocal disabled
        if disabled is None:
            dynamo = sys.modules[DYNAMO]
            if isinstance(dynamo, DeferredDynamo):
                return fn(*args, **kwargs)
            disabled = dynamo.disable(fn, *options, **more)
        return disabled(*args, **kwargs)

    return run


def graph_break(msg: str = "") -> None:
    """Nothing is compiled yet, so there is nothing to break."""


class Deferred:
    """A submodule of which a few names are there; any other name is looked up in the submodule itself."""

    def __init__(self, submodule: str, **names: Callable[..., Any]) -> None:
        self.submodule = submodule
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(getattr(loaded(), self.submodule), name)


NAMES = {
    "OptimizedModule": OptimizedModule,
    "disable": disable,
    "graph_break": graph_break,
    "trace_rules": Deferred("trace_rules", clear_lru_cache=lambda: None),
    "utils": Deferred("utils", get_optimize_ddp_mode=lambda: "ddp_optimizer"),
}
"""What `torch._dynamo` has before its own code has run; `ddp_optimizer` is the mode that it is configured with."""


class DeferredDynamo(ModuleType):
    """`torch._dynamo` before its own code has run."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(loaded(), name)


def loaded() -> ModuleType:
    """`torch._dynamo` after its own code has run, whose names have then replaced those of this file."""
    module = sys.modules[DYNAMO]
    if isinstance(module, DeferredDynamo):
        assert module.__spec__ is not None
        assert isinstance(module.__spec__.loader, _DynamoLoader)
        object.__setattr__(module, "__class__", ModuleType)
        for name in NAMES:
            del module.__dict__[name]
        module.__spec__.loader.loader.exec_module(module)
    return module


class _DynamoLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update(NAMES)
        module.__class__ = DeferredDynamo


class _Imported(importlib.abc.Loader):
    """Gives a module that has been imported while it was looked for."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__spec__"] = self.spec  # `torch._dynamo.config` lets nobody set what is no setting


class DynamoFinder(importlib.abc.MetaPathFinder):
    """Finds `torch._dynamo` as a deferred module; before one of its submodules is imported, its own code runs."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == DYNAMO:
            spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _DynamoLoader(spec.loader)
            return spec
        parent = sys.modules.get(DYNAMO)
        if fullname.startswith(f"{DYNAMO}.") and isinstance(parent, DeferredDynamo):
            loaded()
            if (module := sys.modules.get(fullname)) is not None:
                spec = importlib.util.spec_from_loader(fullname, _Imported(module))
                vars(module)["__spec__"] = spec  # else the import takes the module's own, and runs its code again
                return spec
        return None
