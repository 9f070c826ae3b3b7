"""Other data for a trained run, named by overrides of the group `data`."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from trainer.cli.allow import check_names
from trainer.cli.compose import compose_config
from trainer.cli.messages import mistakes_in_one_line, nearest
from trainer.cli.override import key_of
from trainer.config.model_data import read_data
from trainer.config.settings import Settings
from trainer.lr import ConfigError


def other_data(
    settings: Settings,
    facts: Any,
    saved: Mapping[str, Any],
    words: Sequence[str],
    config_dir: Path | None = None,
    purpose: str = "predict",
) -> Any:
    """The data module that overrides describe, read: another one by `data=NAME`, or the run's own with other settings.

    `facts` has the `shape` and the `class_names` of the data that the run was trained with, and the checkpoint `saved`
    may have what was computed from its training samples, such as means. `purpose` is test or predict.

    Raises:
        ConfigError: an override is not of the data, the data cannot be read, a net of that shape does not fit it, or
            its labels stand for other classes.
    """
    for word in words:
        key = key_of(word)
        if key not in ("data", "allow") and not key.startswith("data."):
            raise ConfigError(f"{word} does not name data: give data=NAME or data.KEY=VALUE.")
    chosen = any(word.startswith("data=") for word in words)
    with mistakes_in_one_line():
        data, allow = _composed(words, config_dir) if chosen else _changed(settings, words)
    check_names(allow, "allow")
    read = read_data(replace(settings, data=data, allow=[*dict.fromkeys([*settings.allow, *allow])]), saved, purpose)
    for name, size in read.shape.items():
        if (own := facts.shape.get(name, size)) != size:
            raise ConfigError(
                f"this data has {name}={size}, and the run was trained with {name}={own}: give data that fits."
            )
    classes, own = (list(getattr(one, "class_names", None) or ()) for one in (read, facts))
    for i, (name, before) in enumerate(zip(classes, own)):
        if name != before:
            raise ConfigError(
                f"this data has the class {name} as label {i}, and the run was trained with {before} there: give data "
                "with the same classes."
            )
    return read


def _composed(words: Sequence[str], config_dir: Path | None) -> tuple[Any, Sequence[str]]:
    cfg = compose_config(words, Namespace(config_dir=config_dir, config_name="train"))
    given: Any = OmegaConf.to_container(cfg.data)
    for name, value in given.items():
        if value == "???":
            raise ConfigError(f"data.{name} is not set: add data.{name}=VALUE.")
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    return plain["data"], plain["allow"]


def _changed(settings: Settings, words: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """The data of the run with other values."""
    cfg: DictConfig = OmegaConf.create({"data": deepcopy(dict(settings.data)), "allow": list(settings.allow)})
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.key_or_group
        name = key.removeprefix("data.")
        if key.startswith("data.") and not override.is_add() and name.partition(".")[0] not in cfg.data:
            raise ConfigError(f"{key} is not a setting of this run's data: {nearest(name, list(cfg.data))}")
        OmegaConf.update(cfg, key, override.value(), force_add=True)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return plain["data"], plain["allow"]
