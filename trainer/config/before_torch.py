"""What is refused before torch is imported, which takes seconds: keys, ranges, foreign targets, and the curve.

A run makes all of these checks again, on what it has built. They are made here first so that a mistake in the config
is told at once.
"""

from collections.abc import Mapping

from omegaconf import DictConfig

from trainer.config.instantiate import check_texts
from trainer.config.resolve import MODULE, PLAIN, horizon_of, plan_of
from trainer.config.settings import Settings, declared_samples, settings_of
from trainer.lr import ConfigError
from trainer.lr.bounds import positive

NODES = "data model task optimizer groups plateau average adapter measure logger callbacks guard".split()
LONG = 100_000
"""A plan of more updates takes as long as what is won."""


def settings_before_torch(cfg: DictConfig) -> Settings:
    """The checked settings of a run.

    Raises:
        ConfigError: a key, a value, a target or the curve is refused, as far as this needs neither torch nor data.
    """
    settings = settings_of(cfg)
    for name in NODES:
        node = getattr(settings.curve if name in ("optimizer", "groups") else settings, name)
        check_texts(node, name, settings.allow)
    try:
        _check_curve(settings)
    except ConfigError:
        raise
    except Exception:
        return settings  # an error in code: the run meets it again, and keeps its traceback
    return settings


def _check_curve(settings: Settings) -> None:
    """Refuse a length, a learning rate or a schedule that the run would refuse, where the config decides them alone."""
    if declared_samples(settings.data, settings.allow) is None:
        return
    length, curve = horizon_of(settings), settings.curve
    resumed = settings.resume.path not in (None, "none") or settings.resume.snapshot is not None
    by_model = curve.groups.get("_target_") != PLAIN or settings.freeze or settings.adapter
    if resumed or by_model or curve.optimizer.get("_target_") == MODULE or length.total > LONG:
        return
    if isinstance(curve.optimizer, Mapping) and "lr" in curve.optimizer:
        positive("optimizer.lr", curve.optimizer["lr"], "the learning rate scales each update; try 0.001 to 0.1.")
    plan_of(settings)
