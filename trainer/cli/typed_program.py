"""The command of a run as a person would type it."""

from typing import Any

from trainer.cli.command import COMMAND, hydra_overrides, overrides, program_shown
from trainer.cli.hydra_internals import given_flags, hydra_raises
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
