"""Schedules inside schedules: a part that names an option of the group `schedule` becomes the config of that option."""

from typing import Any

from omegaconf import OmegaConf

from trainer.cli.compose import config_folders
from trainer.cli.messages import nearest
from trainer.cli.plain_yaml import plain_yaml
from trainer.lr import ConfigError


def expanded(node: Any, key: str) -> Any:
    """The plain config `node` with each named schedule in it replaced by the option's config.

    `of` and the items of `factors` are schedules: a name, {schedule: NAME, …} with settings, or a `_target_`.

    >>> expanded({"of": {"schedule": "linear", "floor": 0.1}}, "schedule")
    {'of': {'_target_': 'trainer.lr.linear', '_partial_': True, 'floor': 0.1}}
    """
    if isinstance(node, list):
        return [expanded(item, f"{key}.{i}") for i, item in enumerate(node)]
    if not isinstance(node, dict):
        return node
    made = {name: expanded(value, f"{key}.{name}") for name, value in node.items()}
    if "of" in made:
        made["of"] = named(made["of"], f"{key}.of")
    if isinstance(made.get("factors"), list):
        made["factors"] = [named(factor, f"{key}.factors.{i}") for i, factor in enumerate(made["factors"])]
    return made


def named(part: Any, key: str) -> Any:
    """The config of one schedule, given as the name of an option, {schedule: NAME, …} or a `_target_`."""
    if isinstance(part, str):
        part = {"schedule": part}
    if not isinstance(part, dict):
        raise ConfigError(f"{key}={part!r} is not a schedule: give the name of one, or {{schedule: NAME, …}}.")
    if "_target_" in part:
        return {**part, "_partial_": True}
    option = part.get("schedule")
    files = {file.stem: file for folder in reversed(config_folders()) for file in (folder / "schedule").glob("*.yaml")}
    if option not in files:
        raise ConfigError(f"{key}: there is no schedule {option}: {nearest(str(option), sorted(files))}")
    with plain_yaml():
        preset: Any = OmegaConf.to_container(OmegaConf.load(files[option]))
    if "defaults" in preset:
        raise ConfigError(f"{key}: schedule {option} includes a warm-up: name a schedule without one.")
    settings = {name: value for name, value in part.items() if name != "schedule"}
    return expanded({**preset, **settings}, key)
