"""Loggers that cannot write: they fall silent with one warning, and the run goes on."""

import sys
from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers.logger import DummyExperiment, Logger

from trainer.log.run_logger import RunLogger
from trainer.lr import ConfigError

SILENT = "_silent"
WRITES = (
    "log_metrics log_hyperparams log_graph log_updates log_text log_image log_hparams log_layout restart save close"
).split()
WRITES += ["finalize", "after_save_checkpoint", "end"]


def failsafe(logger: Logger) -> Logger:
    """The same logger, which after its first error does nothing more.

    For the loggers of TensorBoard and CSV only errors of the system count, for the others all errors.
    """
    kind: Any = type(logger)
    errors = logger.failures if isinstance(logger, RunLogger) else Exception
    own: dict[str, Any] = {
        name: _failsafe(method, errors) for name in WRITES if callable(method := getattr(kind, name, None))
    }
    if isinstance(found := getattr(kind, "experiment", None), property) and found.fget is not None:
        own["experiment"] = property(_failsafe(found.fget, errors, DummyExperiment))
    logger.__class__ = type(kind.__name__, (kind,), {**own, "__module__": kind.__module__, "__doc__": kind.__doc__})
    return logger


class FailsafeWriter:
    """Passes calls on to a writer until the first one fails."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._writer, name)
        if not callable(found) or getattr(self, SILENT, False):
            return found if not callable(found) else _nothing
        return lambda *given, **named: _call(self, type(self._writer).__name__, lambda: found(*given, **named), OSError)


def _nothing(*given: Any, **named: Any) -> None:
    return None


def _failsafe(
    method: Callable[..., Any], errors: type[Exception], otherwise: Callable[[], Any] = _nothing
) -> Callable[..., Any]:
    def call(logger: Any, *given: Any, **named: Any) -> Any:
        if logger.__dict__.get(SILENT):
            return otherwise()
        return _call(logger, type(logger).__name__, lambda: method(logger, *given, **named), errors, otherwise)

    return call


def _call(
    owner: Any,
    name: str,
    act: Callable[[], Any],
    errors: type[Exception],
    otherwise: Callable[[], Any] = _nothing,
) -> Any:
    try:
        return act()
    except ConfigError:
        raise
    except errors as error:
        if not owner.__dict__.get(SILENT):
            owner.__dict__[SILENT] = True
            why = " ".join(str(error).split()) or type(error).__name__
            print(f"warning: {name} cannot log: {why}. The run goes on without it.", file=sys.stderr, flush=True)
            if isinstance(owner, RunLogger):
                owner.abandon()
        return otherwise()
