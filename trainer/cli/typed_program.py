"""The command of a run as a person would type it."""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from trainer.cli.command import COMMAND, hydra_overrides, overrides, program_shown
from trainer.cli.hydra_internals import given_flags, hydra_raises
from trainer.cli.override import key_of
from trainer.distributed.launch.launcher import launcher
from trainer.distributed.launch.requeue import NO_REQUEUE
from trainer.lr import ConfigError


def typed_program(job: Any) -> list[str]:
    """The words that started this run, up to its overrides: `cadence train --config-dir conf`.

    `cadence train` where `sys.argv` is not the command line of this run, as where a notebook or a test has composed its
    config.

    Args:
        job: the settings of Hydra.
    """
    try:
        with hydra_raises():
            flags = given_flags()
    except ConfigError:
        return list(COMMAND)
    asked = overrides(job)
    own = set(asked) <= set(flags.overrides) <= {*asked, *hydra_overrides(job)}
    return program_shown(flags) if own else list(COMMAND)


def typed_overrides(job: Any) -> list[str]:
    """The overrides of a run, `hydra.searchpath` among them: others may name options that are found there."""
    places = [word for word in hydra_overrides(job) if word.lstrip("+").startswith("hydra.searchpath=")]
    return [*places, *overrides(job)]


def resuming_words(job: Any, name: str) -> list[str]:
    """The overrides that continue the run of this name: those that were given, and `resume=auto`."""
    replaced = ("resume", "resume.path", "resume.snapshot")
    places = [word for word in hydra_overrides(job) if word.lstrip("+").startswith(("hydra.searchpath=", "hydra.run."))]
    kept = [word for word in overrides(job) if key_of(word) not in replaced]
    named = any(word.startswith("name=") for word in kept)
    return [*places, *kept, *([] if named else [f"name={name}"]), "resume=auto"]


def resuming_command(job: Any, program: Sequence[str], name: str) -> str:
    """The command that continues a run, to paste; for one that another program starts, what to add to its command."""
    if os.environ.get(NO_REQUEUE):
        return "the command of the sweep and resume=auto"
    if launcher() is not None:
        return f"the same command, name={name} and resume=auto"
    return shlex.join([*program, *resuming_words(job, name)])
