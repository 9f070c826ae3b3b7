"""An error that torch has raised for a batch, as one line that names the update and the samples."""

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchmetrics

from trainer.engine.guard import Diverged
from trainer.engine.protocols import MicroBatch
from trainer.lr import ConfigError

OF_BATCHES = (RuntimeError, ValueError, TypeError, IndexError, Warning)
"""What torch raises for data, a net and a loss that do not fit each other."""
_FIT = "Choose data, a net, a loss and metrics that fit each other."
_NAMED = 4
ONE_SAMPLE = "Expected more than 1 value per channel when training"
"""What torch says of BatchNorm over one number for each channel."""
NO_GRADIENT = "does not require grad and does not have a grad_fn"
"""What torch says of the gradient of a loss that depends on no parameter that trains."""


def explained(error: Exception, what: str) -> Exception:
    """One line for an error that torch has raised; others keep their traceback, which leads to the code of a user."""
    if isinstance(error, ConfigError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    if not _is_of_torch(frames[-1].filename):
        return error
    last = next(frame for frame in reversed(frames) if not _is_of_torch(frame.filename))
    where = "" if Path(__file__).parents[1] in Path(last.filename).parents else f" at {last.filename}:{last.lineno}"
    message = " ".join(str(error).split()).rstrip(".")
    return ConfigError(f"{what}{where}: {message}. {_FIT}")


def explained_update(error: Exception, module: Any, update: Sequence[MicroBatch]) -> Exception:
    """One line for an error of torch in an update of `module`, where its step raises it again without the update.

    It names the samples that raise it alone, where the training loader knows their indices. An error that is not
    raised again, such as one of the memory or of the connection to another process, stays as it is.
    """
    if isinstance(error, ConfigError) or module.trainer.strategy.__class__.__name__.endswith("FSDP"):
        return error
    t = module.clock.t
    if ONE_SAMPLE in str(error):
        return ConfigError(
            f"update {t} cannot be computed: BatchNorm needs more than one sample in a micro-batch: take "
            "data.batch_size=2 or more, or a net without it."
        )
    if NO_GRADIENT in str(error):
        return ConfigError(
            f"update {t} cannot be computed: its loss depends on no parameter that trains. Compute it from what "
            "the net gives, without detach(), item() and no_grad()."
        )
    with torch.no_grad():
        module.eval()
        if not any(_raises(error, partial(module.run_step, micro.batch)) for micro in update):
            return error
        samples = getattr(module.trainer.train_dataloader, "samples", lambda t: ())(t)
        found = [(index, _raises(error, partial(module.run_step, batch))) for index, batch in samples]
    bad = [index for index, raises in found if raises]
    which = ""
    if 0 < len(bad) < len(found):
        shown = ", ".join(map(str, bad[:_NAMED])) + (", …" if len(bad) > _NAMED else "")
        which = f", because of training sample{'s' if len(bad) > 1 else ''} {shown}"
    return explained(error, f"update {t} cannot be computed{which}")


def explained_nan(failure: Diverged, module: Any, update: Sequence[MicroBatch]) -> Diverged:
    """The same failure; where no target of the update counts, the reason given is a mean over none of them."""
    weight_of = getattr(module.step, "weight_of", None)
    if weight_of is None or module.trainer.world_size > 1:
        return failure
    weights = [weight_of(micro.batch) for micro in update]
    if any(weight is None or torch.as_tensor(weight).any() for weight in weights):
        return failure
    text = (
        f"update {failure.update} has no target that counts, so its loss is nan: the run stops, and this update is not "
        "applied. Take a larger batch, or leave samples out of which no target counts."
    )
    return Diverged(text, failure.update)


def _raises(error: Exception, call: Callable[[], Any]) -> bool:
    try:
        call()
    except type(error):
        return True
    except Exception:
        return False
    return False


def _is_of_torch(file: str) -> bool:
    return any(Path(str(package.__file__)).parent in Path(file).parents for package in (torch, torchmetrics))
