"""Runs that have stopped early: what their result says, and that they are completed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from trainer.engine.early_stopping import EarlyStopping
from trainer.engine.module import Module
from trainer.files.plain import read_record
from trainer.lr import ConfigError
from trainer.resume.resume_point import ResumePoint


def stopped_early(module: Module, trainer: pl.Trainer) -> dict[str, Any]:
    """The entry of a result about a fit that has ended before its last update: at which one, and why; else empty."""
    if module.over:
        return {}
    reasons = [callback.reason for callback in _stopping(trainer) if callback.reason]
    return {"stopped_early": {"update": module.clock.t, "reason": "; ".join(reasons) or "a callback has stopped it"}}


def restored_reason(checkpoint: ResumePoint, trainer: pl.Trainer) -> str | None:
    """Why a run would end early where it is resumed, by the settings of its config now; None where it goes on."""
    states = checkpoint.content["callbacks"]
    for callback in _stopping(trainer):
        if callback.state_key in states:
            callback.load_state_dict(states[callback.state_key])
            if callback.reason:
                return callback.reason
    return None


def check_not_completed(
    checkpoint: ResumePoint | None, folder: Path, trainer: pl.Trainer, callbacks: Mapping[str, Any]
) -> None:
    """Refuse to go on with a run that has stopped early and has its result.

    It goes on where its `callbacks` were changed and would not stop it now. Where its learning-rate curve was changed,
    as by a longer duration, the waiting begins anew.
    """
    if checkpoint is None:
        return
    result, update = read_record(folder / "result.json"), checkpoint.saved["updates"]
    early = result.get("stopped_early") or {}
    if result.get("status") != "completed" or early.get("update") != update:
        return
    now = restored_reason(checkpoint, trainer)
    if now is not None or checkpoint.saved["config"].get("callbacks") == callbacks:
        raise ConfigError(
            f"resume.path={checkpoint.path} is completed: it stopped early at update {update}, because "
            f"{now or early.get('reason')}. "
            "Raise callbacks.early_stopping.patience or lengthen trainer.duration to go on."
        )


def _stopping(trainer: pl.Trainer) -> list[EarlyStopping]:
    return [one for one in trainer.callbacks if isinstance(one, EarlyStopping)]  # type: ignore[attr-defined]
