"""Variants of a composed config: with other values of some keys, and for the short trainings of a tune."""

from collections.abc import Sequence
from copy import deepcopy

from omegaconf import DictConfig, OmegaConf

from trainer.config.settings import settings_of


def with_words(cfg: DictConfig, words: Sequence[str]) -> DictConfig:
    """A copy of a composed config with plain overrides of keys that it has."""
    cfg = deepcopy(cfg)
    for word in words:
        key = word.partition("=")[0]
        OmegaConf.update(cfg, key, OmegaConf.select(OmegaConf.from_dotlist([word]), key), merge=False)
    return cfg


def for_tuning(cfg: DictConfig) -> DictConfig:
    """A copy that starts anew in one process, on the same batches, without measurements, callbacks and snapshots.

    An update that is not finite ends a training, a high rate does not.
    """
    cfg, run = deepcopy(cfg), settings_of(cfg).trainer
    for key in ("measure", "callbacks"):
        OmegaConf.update(cfg, key, {}, merge=False, force_add=True)
    OmegaConf.update(cfg, "guard", {"_target_": "trainer.lr.guard.Stop"}, merge=False)
    OmegaConf.update(cfg, "lint.ignore", sorted({*cfg.lint.ignore, "huge-lr"}), merge=False)
    OmegaConf.update(cfg, "trainer.snapshots", [], merge=False)
    OmegaConf.update(cfg, "resume.path", None)
    if run.world > 1:
        one = {"devices": 1, "nodes": 1, "strategy": "auto", "accumulate": run.world * run.accumulate}
        for key, value in one.items():
            OmegaConf.update(cfg, f"trainer.{key}", value)
    return cfg
