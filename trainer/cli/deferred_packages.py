"""Packages of torchmetrics that run their own code only when somebody asks for what is in it.

`import pytorch_lightning` imports torchmetrics, and that imports scipy.signal and, where it is installed, transformers:
two seconds and more a process, for metrics that are seldom used. A deferred package has its path, so that its
submodules can be imported by themselves (`torchmetrics.metric`), and runs its own code at the first other name.

Every metric imports `torchmetrics.utilities.plot`, and that imports matplotlib: its functions wait for a call.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from trainer.cli.deferred_dynamo import DynamoFinder

DEFERRED = ("torchmetrics", "torchmetrics.functional")
PLOT = "torchmetrics.utilities.plot"
SUBMODULES = {
    "torchmetrics.Metric": "torchmetrics.metric",
    "torchmetrics.MetricCollection": "torchmetrics.collections",
    "torchmetrics.SumMetric": "torchmetrics.aggregation",
}
"""What Lightning and the trainer take of torchmetrics, and the submodule that has it."""


class DeferredPackage(ModuleType):
    """A package whose own code has not run yet."""

    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return importlib.import_module("torchmetrics.__about__").__version__
        if name == "_logger":  # torchmetrics.utilities takes it
            return logging.getLogger("torchmetrics")
        if name.startswith("__") and name != "__all__":  # `from torchmetrics import *` asks for that
            raise AttributeError(name)
        full_name = f"{self.__name__}.{name}"
        if full_name in SUBMODULES:
            return getattr(importlib.import_module(SUBMODULES[full_name]), name)
        if importlib.util.find_spec(full_name):
            return importlib.import_module(full_name)
        module: ModuleType = self
        assert module.__spec__ is not None
        assert isinstance(module.__spec__.loader, _DeferredLoader)
        module.__class__ = ModuleType
        try:
            module.__spec__.loader.loader.exec_module(module)
        except Exception as error:
            module.__class__ = DeferredPackage
            raise ImportError(f"{self.__name__} cannot be imported: {error}", name=self.__name__) from error
        return getattr(module, name)


class _DeferredLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = DeferredPackage
        if module.__name__ == "torchmetrics":
            importlib.import_module("torchmetrics.utilities")  # torchmetrics.metric cannot be imported before it


class _Axes(type):
    """Axes of matplotlib are instances of this, once it has been imported."""

    def __instancecheck__(cls, instance: object) -> bool:
        axes = sys.modules.get("matplotlib.axes")
        return axes is not None and isinstance(instance, axes.Axes)


class Axes(metaclass=_Axes):
    """Stands for `matplotlib.axes.Axes`."""


class _PlotLoader(importlib.abc.Loader):
    """Gives the module stand-ins of its types, and functions that run its code when one is called."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self.loader = loader

    def exec_module(self, module: ModuleType) -> None:
        def find(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return Axes if name == "_AX_TYPE" else object if name.endswith("_TYPE") else call(name)

        def call(name: str) -> Any:
            def run(*args: Any, **kwargs: Any) -> Any:
                if module.__dict__.pop("__getattr__", None):
                    self.loader.exec_module(module)
                return getattr(module, name)(*args, **kwargs)

            return run

        module.__dict__["__getattr__"] = find


class _DeferredFinder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in (*DEFERRED, PLOT):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = (_PlotLoader if fullname == PLOT else _DeferredLoader)(spec.loader)
        return spec


def defer_packages() -> None:
    """From now on the packages in `DEFERRED` wait, and `torch._dynamo`; one that is imported already stays as it is."""
    if not any(isinstance(finder, _DeferredFinder) for finder in sys.meta_path):
        sys.meta_path[:0] = [_DeferredFinder(), DynamoFinder()]
