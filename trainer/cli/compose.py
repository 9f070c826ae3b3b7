"""The config as the command line composes it, for every command beside training; and where configs and packages lie."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from trainer.cli.hydra_internals import check_composed, initialized
from trainer.cli.messages import check_options
from trainer.cli.run_id import register_run_id
from trainer.lr import ConfigError
from trainer.lr.bounds import integer

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds the packages of Cadence: a checkout, or where the wheel is installed."""
CONF = next((place for place in (ROOT / "cadence" / "conf", ROOT / "conf") if place.is_dir()), ROOT / "conf")
"""The shipped configs: `cadence.conf` of the wheel, `conf` of a checkout."""


def find_own_packages(reading: Path | None = None) -> None:
    """Let the packages in the working folder be imported, after those of Cadence.

    A user's `models` and `data` then join the shipped ones, which are open packages. First on the path, where
    `python -m` puts the working folder, they would hide the shipped ones.

    Args:
        reading: the folder of a run that is read, which may come from somebody else: nothing in it is imported.
    """
    here = str(Path.cwd())
    if here != str(ROOT):
        foreign = reading is not None and Path.cwd().is_relative_to(reading.resolve())
        sys.path[:] = [*(place for place in sys.path if place not in ("", here)), *([] if foreign else [here])]


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add what each command that composes a config takes: overrides, and where more configs lie."""
    parser.add_argument("overrides", nargs="*", help="as for cadence train: optimizer=sgd schedule=cosine …")
    parser.add_argument(
        "--config-dir", "-cd", type=Path, metavar="FOLDER", help="more options, as in FOLDER/model/my.yaml"
    )
    parser.add_argument(
        "--config-name", "-cn", default="train", metavar="NAME", help="the config to start from (train)"
    )


def add_file_options(parser: argparse.ArgumentParser, stem: str) -> None:
    """Add where a command writes its picture and its numbers, and that it may leave them out."""
    parser.add_argument(
        "--out", type=Path, default=Path(stem), metavar="STEM", help=f"stem of the files to write ({stem})"
    )
    parser.add_argument("--no-files", action="store_true", help="write nothing: no picture, no numbers")


def compose_config(
    overrides: Iterable[str], options: argparse.Namespace | None = None, with_hydra: bool = False
) -> DictConfig:
    """The config that `cadence train OVERRIDES` would see.

    Args:
        overrides: as on the command line, `hydra.searchpath` among them.
        options: what `add_config_options` has parsed; None: the shipped configs alone.
        with_hydra: with the settings of Hydra, as `hydra`.

    Raises:
        ConfigError: the folder of --config-dir does not exist, a group has several options that takes one, or a file
            allows packages that no override allows.
        HydraException: what the overrides ask for does not exist; `run_cli` reports it in one line.
    """
    config_dir: Path | None = options.config_dir if options else None
    if config_dir is not None and not config_dir.is_dir():
        raise ConfigError(f"--config-dir={config_dir} is not a folder: name the one that holds your configs.")
    find_own_packages()
    register_run_id()
    with initialized(CONF, config_dir):
        name, words = options.config_name if options else "train", list(overrides)
        cfg = compose(name, words, return_hydra_config=with_hydra)
        check_options(words)
        keep_search_path(GlobalHydra.instance().config_loader().get_sources())
    return check_composed(cfg, words)


_search_path: list[Path] = []


def keep_search_path(sources: Iterable[Any]) -> None:
    """Keep the folders of a search path of Hydra, in its order: what composes a config later looks there, too."""
    paths = [str(source.path).removeprefix("file://") for source in sources if "pkg:" not in str(source.path)]
    _search_path[:] = [Path(path) for path in paths if path and Path(path).is_dir()]


def config_folders() -> list[Path]:
    """The folders with options: those of the search path of the config that was composed last, and the shipped ones."""
    return [*(folder for folder in _search_path if folder != CONF), CONF]


def with_length(cfg: DictConfig, updates: int, name: str) -> DictConfig:
    """The config of a run of `updates` updates, `name` in messages; what its data lacks becomes null."""
    cfg = deepcopy(cfg)
    cfg.trainer.duration = integer(name, updates, "a run has at least one update.")
    data: Any = OmegaConf.to_container(cfg.data)
    lacking = [key for key, value in data.items() if value == "???"]
    for key in [*lacking, "samples"] if lacking else []:
        cfg.data[key] = None
    return cfg


def absolute_config_path(words: Sequence[str]) -> list[str]:
    """The words of a command with a relative --config-path taken from the working folder, as other paths are."""
    flags, found = ("--config-path", "-cp"), list(words)
    for i, word in enumerate(found):
        flag, equals, path = word.partition("=")
        if flag in flags and equals:
            found[i] = f"{flag}={_absolute(path)}"
        elif word in flags and i + 1 < len(found):
            found[i + 1] = _absolute(found[i + 1])
    return found


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())
