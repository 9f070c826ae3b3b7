"""Lowers the learning rate when a metric stops improving, and logs it."""

from typing import Any

import pytorch_lightning as pl

from trainer.engine.lr_control import LRControl
from trainer.engine.watched_metric import never_validates, tell_event, watched_value
from trainer.lr import ConfigError, Plateau


class PlateauControl(pl.Callback):
    """Gives `rule` the metric of every validation of a fit, and its factor to the `LRControl` that writes the rates.

    The factor is logged after each validation as `plateau/factor`; a change is one line on stderr and in the log's
    texts. All processes follow the metric of rank zero. The state of the rule is in the checkpoint; a `fresh` one
    ignores it and starts at 1. It also works with your own module, beside an `LRControl`.
    """

    def __init__(self, rule: Plateau, fresh: bool = False) -> None:
        self.rule, self.fresh = rule, fresh

    @property
    def monitor(self) -> str:
        """The metric that the rule watches."""
        return self.rule.monitor

    @property
    def mode(self) -> str:
        """The direction that the rule takes for better."""
        return self.rule.mode

    def state_dict(self) -> dict[str, Any]:
        return self.rule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self.fresh:
            self.rule.load_state_dict(state_dict)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Apply the factor of the checkpoint."""
        _control(trainer, pl_module).plateau = self.rule.value

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a run that never validates."""
        if never_validates(trainer):
            raise ConfigError(f"plateau watches {self.monitor}, but the run never validates: take plateau=none.")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the rule the metric; its factor holds from the next update on."""
        value, t = watched_value(trainer, "plateau.monitor", self.monitor), trainer.global_step
        if value is None:
            return
        event = self.rule.observe(value, t)
        _control(trainer, pl_module).plateau = self.rule.value
        for logger in trainer.loggers:
            logger.log_metrics({"plateau/factor": self.rule.value}, max(t - 1, 0))
        if event:
            tell_event(trainer, f"update {t}: {event}", t)


def _control(trainer: pl.Trainer, module: pl.LightningModule) -> LRControl:
    """The module's `control`, or the `LRControl` among the callbacks."""
    for found in (getattr(module, "control", None), *trainer.callbacks):  # type: ignore[attr-defined]
        if isinstance(found, LRControl):
            return found
    raise ConfigError("plateau needs an LRControl, which writes the rates: add one to the callbacks.")
