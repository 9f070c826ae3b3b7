"""`cadence.plan`: the curve of a run without the run, for your own training loop or your own trainer."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from cadence.composing import composed
from trainer.cli.compose import with_length
from trainer.config.settings import settings_of
from trainer.lr import ConfigError, Plan, lint
from trainer.tools.plan.command import planned

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from trainer.engine.lr_control import LRControl
    from trainer.optim.policy_scheduler import PolicyScheduler


@dataclass(frozen=True)
class RunPlan(Plan):
    """Every learning rate of a run, as `trainer.lr.Plan` has them, and what applies them outside `cadence.fit`.

    `plateau` is the rule that lowers the rate with the scores of the run, by its name; empty where there is none.
    """

    plateau: str = ""

    def scheduler(self, optimizer: "Optimizer", start: int = 0) -> "PolicyScheduler":
        """A scheduler of torch for a plain loop, transformers' Trainer or Accelerate; see `PolicyScheduler`.

        Args:
            optimizer: its parameter groups are matched by their `name`, or else by their order.
            start: the updates made before.

        Raises:
            ConfigError: the groups do not fit, or a part of the curve follows from the run (plateau, adascale).
        """
        from trainer.optim.policy_scheduler import PolicyScheduler  # late: a plan needs no torch

        self._refuse_plateau("a scheduler")
        return PolicyScheduler(optimizer, self.policy, self.horizon.total, start)

    def callback(self) -> "LRControl":
        """A callback for your own trainer, of `pytorch_lightning` or `lightning.pytorch`; see `LRControl`."""
        from trainer.engine.lr_control import LRControl  # late: a plan needs no torch

        self._refuse_plateau("this callback")
        if self.policy.most_gain is not None:
            raise ConfigError("scaling=adascale: the rate follows from measured gradients: train with cadence.fit.")
        return LRControl(self.policy, plan=self)

    def _refuse_plateau(self, what: str) -> None:
        if self.plateau:
            raise ConfigError(
                f"plateau={self.plateau}: the rate follows from the run's scores, which {what} does not get: "
                "take plateau=none, or train with cadence.fit."
            )


def plan(
    *overrides: str | Sequence[str] | DictConfig,
    updates: int | None = None,
    config_dir: str | Path | None = None,
    config_name: str = "train",
) -> RunPlan:
    """The plan of the run that `cadence train OVERRIDES` would make; nothing is trained.

    Args:
        overrides: as on the command line, in one list or one by one; or a config that has been composed.
        updates: the length of the run, in place of `trainer.duration`; the data need not be there then.
        config_dir: a folder with more options, as `--config-dir`.
        config_name: the config to start from.

    Raises:
        ConfigError: the config, or the curve that it describes, is invalid.

    >>> from cadence import plan
    >>> curve = plan("optimizer=sgd", "optimizer.lr=0.1", "schedule=linear", "warmup=none", updates=4).curve
    >>> [round(lr, 3) for lr in curve]
    [0.1, 0.075, 0.05, 0.025]
    """
    cfg = composed(overrides, config_dir, config_name)
    settings = settings_of(cfg if updates is None else with_length(cfg, updates, "updates"))
    made = planned(settings)
    for warning in lint.check(made, settings.lint_ignore):
        warnings.warn(warning, stacklevel=2)
    rule = str(settings.plateau["_target_"]).rpartition(".")[2] if settings.plateau else ""
    return RunPlan(made.policy, made.horizon, made.settings, rule)
