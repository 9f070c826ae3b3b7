"""Cadence: train PyTorch models with a learning-rate curve that is explicit, checked and logged.

    import cadence

    plan = cadence.plan("optimizer=adamw", "schedule=cosine_warmup", updates=1000)
    scheduler = plan.scheduler(optimizer)

What is slow to import is imported where it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cadence.planning import RunPlan, plan

__all__ = ["RunPlan", "plan"]

_HOMES = {"plan": "planning", "RunPlan": "planning"}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cadence' has no attribute {name!r}")
    return getattr(importlib.import_module(f"cadence.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
