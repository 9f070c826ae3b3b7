"""What is refused before torch is imported, which takes seconds: keys, ranges, foreign targets, and the curve.

A run checks again what it has built. The checks are made here first so that a mistake in the config is reported at
once, and the plan is handed on.
"""

from collections.abc import Mapping
from dataclasses import replace

from trainer.config.instantiate import check_texts
from trainer.config.resolve import MODULE, PLAIN, Planned, horizon_of, planned
from trainer.config.settings import Settings, declared_samples
from trainer.lr import ConfigError
from trainer.lr.bounds import positive

NODES = "data model task optimizer groups plateau average adapter measure logger callbacks guard".split()
LONG = 100_000
"""A plan of more updates takes longer to make than the import of torch, which the early check would save."""


def checked(settings: Settings) -> Settings:
    """The settings of a run, with the plan where the config alone decides it.

    Raises:
        ConfigError: a key, a value, a target or the curve is refused, as far as this needs neither torch nor data.
    """
    for name in NODES:
        node = getattr(settings.curve if name in ("optimizer", "groups") else settings, name)
        check_texts(node, name, settings.allow)
    try:
        return replace(settings, planned=_planned(settings))
    except ConfigError:
        raise
    except Exception:
        return settings  # an error in code: the run meets it again, and keeps its traceback


def _planned(settings: Settings) -> Planned | None:
    """The plan, which raises what the run would refuse; None where more than the config decides it."""
    if declared_samples(settings.data, settings.allow) is None:
        return None
    length, curve = horizon_of(settings), settings.curve
    resumed = settings.resume.path not in (None, "none") or settings.resume.snapshot is not None
    by_model = curve.groups.get("_target_") != PLAIN or settings.freeze or settings.adapter
    if resumed or by_model or curve.optimizer.get("_target_") == MODULE or length.total > LONG:
        return None
    if isinstance(curve.optimizer, Mapping) and "lr" in curve.optimizer:
        positive("optimizer.lr", curve.optimizer["lr"], "the learning rate scales each update; try 0.001 to 0.1.")
    return planned(settings)
