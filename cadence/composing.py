"""The config of a call from Python: composed from overrides, or given whole."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, open_dict

from trainer.cli.compose import compose_config
from trainer.cli.messages import mistakes_in_one_line
from trainer.lr import ConfigError

Overrides = Sequence[str | Sequence[str] | DictConfig]


def composed(given: Overrides, config_dir: str | Path | None = None, config_name: str = "train") -> DictConfig:
    """The config that `cadence train OVERRIDES` would see, or the one that is given; its Hydra part is left out.

    A Hydra that is active, as inside `hydra.main`, is put aside for the time of the call.
    """
    if (cfg := given_config(given)) is not None:
        return cfg
    return _without_hydra(composed_job(words_of(given), config_dir, config_name))


def composed_job(words: Sequence[str], config_dir: str | Path | None, config_name: str) -> DictConfig:
    """The config of overrides, with the settings of Hydra as `hydra`."""
    options = Namespace(config_dir=None if config_dir is None else Path(config_dir), config_name=config_name)
    hydra = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with mistakes_in_one_line():
            return compose_config(words, options, with_hydra=True)
    finally:
        GlobalHydra.instance().hydra = hydra


def given_config(given: Overrides) -> DictConfig | None:
    """The composed config among the arguments of a call; None where there are overrides."""
    if not any(isinstance(one, DictConfig) for one in given):
        return None
    (cfg, *more) = given
    if more or not isinstance(cfg, DictConfig):
        raise ConfigError("a composed config is given beside overrides: compose it with them.")
    return _without_hydra(cfg)


def words_of(given: Overrides) -> list[str]:
    """Overrides that were given one by one or in lists."""
    words: list[Any] = [word for one in given for word in ([one] if isinstance(one, str) else one)]
    return words


def _without_hydra(cfg: DictConfig) -> DictConfig:
    if "hydra" not in cfg:
        return cfg
    cfg = cfg.copy()
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg
