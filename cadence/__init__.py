"""Cadence: train PyTorch models with a learning-rate curve that is explicit, checked and logged.

    import cadence

    plan = cadence.plan("optimizer=adamw", "schedule=cosine_warmup", updates=1000)
    scheduler = plan.scheduler(optimizer)           # in a loop of your own
    run = cadence.fit("optimizer=adamw", "name=first")
    run = cadence.load("outputs/first")
    outputs, scores = run.predict(inputs), run.test()

What is slow to import is imported where it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cadence.fitting import fit
    from cadence.planning import RunPlan, plan
    from trainer.tools.trained.loading import Run, load

__all__ = ["Run", "RunPlan", "fit", "load", "plan"]

_HOMES = {
    "fit": "cadence.fitting",
    "plan": "cadence.planning",
    "RunPlan": "cadence.planning",
    "load": "trainer.tools.trained.loading",
    "Run": "trainer.tools.trained.loading",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cadence' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
