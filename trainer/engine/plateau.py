"""Lowers the learning rate where a metric says so, and logs it."""

import sys
from typing import Any

import pytorch_lightning as pl

from trainer.engine.lr_control import LRControl
from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError, Plateau


class PlateauControl(pl.Callback):
    """Shows `rule` every validation of a fit, and gives its factor to the `LRControl` that writes the rates.

    The factor is logged after each validation as `plateau/factor`; a change is an event, one line on stderr and in
    the log's texts. All processes follow the metric of rank zero. The state of the rule lies in the checkpoint, so
    this callback comes before the one that saves; a `fresh` one begins at 1 all the same. It also serves a module of
    your own, beside an `LRControl`.
    """

    def __init__(self, rule: Plateau, fresh: bool = False) -> None:
        self.rule, self.fresh = rule, fresh

    @property
    def monitor(self) -> str:
        """The metric that the rule watches."""
        return self.rule.monitor

    def state_dict(self) -> dict[str, Any]:
        return self.rule.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self.fresh:
            self.rule.load_state_dict(state_dict)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the factor of the checkpoint."""
        _control(trainer, pl_module).plateau = self.rule.value

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a run in which the rule would never be asked."""
        loaded = trainer.val_dataloaders is not None
        if not trainer.enable_validation or (loaded and not sum(trainer.num_val_batches)):
            raise ConfigError(f"plateau watches {self.monitor}, but no data validates: add some, or take plateau=none.")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ask the rule; its factor holds from the next update on."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        known = trainer.callback_metrics
        if self.monitor not in known:
            raise ConfigError(f"plateau.monitor={self.monitor} is not computed: choose one of {', '.join(known)}.")
        t = trainer.global_step
        event = self.rule.observe(trainer.strategy.broadcast(known[self.monitor].item()), t)
        _control(trainer, pl_module).plateau = self.rule.value
        self._log(trainer, t, event)

    def _log(self, trainer: pl.Trainer, t: int, event: str | None) -> None:
        """Log at the last update before `t`, which a run resumed at `t` keeps."""
        for logger in trainer.loggers:
            logger.log_metrics({"plateau/factor": self.rule.value}, max(t - 1, 0))
            if event and isinstance(logger, TensorBoard):
                logger.log_text("events", f"update {t}: {event}", max(t - 1, 0))
        if event and trainer.is_global_zero:
            print(f"update {t}: {event}", file=sys.stderr, flush=True)


def _control(trainer: pl.Trainer, module: pl.LightningModule) -> LRControl:
    """The `LRControl` of our module, or the one among the callbacks."""
    for found in (getattr(module, "control", None), *trainer.callbacks):  # type: ignore[attr-defined]
        if isinstance(found, LRControl):
            return found
    raise ConfigError("plateau multiplies the rates that LRControl writes, and there is none: add it to the callbacks.")
