"""The command that started a run: mistakes that Hydra does not notice, and how to start the program again."""

import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainer.cli.messages import check_options, nearest, taken_apart
from trainer.cli.override import key_of
from trainer.distributed.launch.launcher import SIZES, number_of, started_by
from trainer.lr import ConfigError

PROCESS = "hydra_plugins.process_launcher.ProcessLauncher"
IN_PROCESS = "hydra_plugins.in_process_launcher.InProcessLauncher"
SLURM = "hydra_plugins.slurm_launcher.SlurmLauncher"
RAY = "hydra_plugins.ray_launcher.RayLauncher"
COMMAND = ("cadence", "train")
RANKS = ("SLURM_STEP_NUM_TASKS", *SIZES)


def check_launcher(launcher: Any) -> None:
    """Refuse, before any job starts, a sweep that each rank would run, and a launcher whose jobs cannot be distributed.

    Other launchers run a job inside a process of their own, and Lightning's child processes cannot start it again.
    """
    ranks = max(int(given) if (given := os.environ.get(name, "")).isdecimal() else 1 for name in RANKS)
    if ranks > 1:
        raise ConfigError(
            f"this is one of {ranks} ranks, and each would run the whole sweep: start it with plain python "
            "and let each job be distributed, as in cadence train -m trainer=ddp trainer.devices=2"
        )
    target = str(launcher.get("_target_"))
    if target not in (PROCESS, IN_PROCESS, SLURM, RAY):
        name = target.rpartition(".")[2]
        raise ConfigError(
            f"hydra/launcher: {name} runs jobs inside processes of its own, where trainer=ddp would start the whole "
            "sweep again: take hydra/launcher=process, with hydra.launcher.jobs=2 for two at a time"
        )


def check_command(job: Any) -> None:
    """Refuse, in the settings of Hydra, a sweep in one process, a setting made twice, a key that nothing reads."""
    if job.mode == RunMode.MULTIRUN:
        raise ConfigError(
            f"hydra/launcher={job.launcher._target_} would run all jobs in one process: take hydra/launcher=process."
        )
    check_options(overrides(job))
    of_hydra = hydra_overrides(job)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        number_of(name, 0)
    if started_by() != "cadence":  # Lightning's launcher repeats hydra.run.dir
        _check_once([*of_hydra, *overrides(job)])
    if not job.run.dir.strip():
        raise ConfigError(f"hydra.run.dir={job.run.dir} is not a folder: name one, or leave it out.")
    for override in of_hydra:
        if override.startswith(("+hydra.", "++hydra.")):
            _check_key(job, key_of(override))


def _check_once(given: list[str]) -> None:
    first: dict[str, str] = {}
    for override in given:
        key = override.partition("=")[0]
        other = first.setdefault(key.lstrip("+"), override)
        if other is not override:
            if line := taken_apart(given, key):
                raise ConfigError(f"{other}: {line}")
            raise ConfigError(f"{other} and {override} set the same key: keep one.")


def hydra_overrides(job: Any) -> list[str]:
    """The overrides of Hydra's own settings as they were given."""
    return _plain(job.overrides.hydra)


def overrides(job: Any) -> list[str]:
    """The overrides as they were given; reading them through the config would resolve what is in `${}`."""
    return _plain(job.overrides.task)


def _plain(given: Any) -> list[str]:
    words: Any = OmegaConf.to_container(given, resolve=False)
    return words


def _check_key(node: Any, key: str) -> None:
    """Refuse a key that the schema of Hydra's settings does not have."""
    _, *parts = key.split(".")
    for part in parts:
        if not isinstance(node, DictConfig):
            return
        schema = OmegaConf.get_type(node)
        known = [field.name for field in fields(schema)] if is_dataclass(schema) else [part]
        if part not in known:
            raise ConfigError(f"{key} is not known to Hydra: {nearest(part, known)}")
        node = node[part]


def program(flags: Any) -> list[str]:
    """The words that start this program again, up to its overrides.

    Args:
        flags: those that Hydra has read, as `hydra_internals.given_flags` gives them.
    """
    spec = sys.modules["__main__"].__spec__  # of `python -m`, and of the command `cadence`
    script = [sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]
    given = {
        "--config-path": flags.config_path,
        "--config-name": flags.config_name,
        "--config-dir": flags.config_dir,
    }
    chosen = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    return [sys.executable, *script, *chosen]


def program_shown(flags: Any) -> list[str]:
    """The same words as a person would type them."""
    words = program(flags)[1:]
    return [*COMMAND, *words[2:]] if words[:2] == ["-m", "cadence.train"] else ["python", *words]


def run_program(words: Sequence[str]) -> None:
    """Run in this process what `python WORDS` would run: a script, or with `-m` a module."""
    script, *rest = words
    if script == "-m":
        module, *sys.argv[1:] = rest
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = words
        sys.path[0] = str(Path(script).resolve().parent)
        runpy.run_path(script, run_name="__main__")
