"""One batch is scored before the first update: what cannot be scored is refused before anything is trained."""

import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchmetrics
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from trainer.lr import ConfigError

OF_TORCH = frozenset(vars(nn.Module())) - {"_buffers"}
"""The attributes that every module has."""


def rehearse(trainer: pl.Trainer, module: Any) -> None:
    """Score the first validation batch in evaluation mode; the first test batch where no data validates.

    Net, loss, metrics and monitors go through all that a validation does, but nothing is logged. Weights, buffers,
    attributes of modules, modes, metrics and random generators are afterwards as they were. Raises `ConfigError` for
    what cannot be scored, and for a callback of `module.monitors` whose metric is not computed.
    """
    stage, loader = _loader(trainer)
    if stage != "val":
        for callback, monitor in module.monitors.items():
            raise ConfigError(
                f"{callback}={monitor}, but the run never validates: leave it out, or give validation data."
            )
    if loader is None:
        return
    scores = module.scores[stage]
    with isolate_rng(), torch.no_grad(), _eager(module.net), _restored(module):
        module.eval()
        module.control.reset()
        batch = trainer.precision_plugin.convert_input(next(iter(loader)))
        batch = trainer.strategy.batch_to_device(batch)
        module.scores[stage] = deepcopy(scores)
        try:
            (trainer.strategy.validation_step if stage == "val" else trainer.strategy.test_step)(batch, 0)
            values, arrays = module.scores[stage].compute(), module.scores[stage].arrays
        except (RuntimeError, ValueError, TypeError, IndexError, Warning) as error:
            raise _explained(error, stage) from error
        finally:
            module.scores[stage] = scores
    if stage == "val":
        watched = {"task.monitor": f"val/{module.task.monitor}", **module.monitors}
        for what, monitor in watched.items():
            _check_scalar(what, monitor, values, arrays)


def _loader(trainer: pl.Trainer) -> tuple[str, Any]:
    """The stage and the loader of what is scored first; None where nothing is."""
    if trainer.enable_validation and trainer.val_dataloaders is not None and any(trainer.num_val_batches):
        loaders = trainer.val_dataloaders
        return "val", loaders[0] if isinstance(loaders, list | tuple) else loaders
    data: Any = getattr(trainer, "datamodule", None)
    loader = data.test_dataloader() if data is not None else None
    return "test", loader if loader is not None and len(loader) else None


def _explained(error: Exception, stage: str) -> Exception:
    """One line for an error that torch has raised; others keep their traceback, which leads to the code of a user."""
    if isinstance(error, ConfigError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    if not _is_of_torch(frames[-1].filename):
        return error
    last = next(frame for frame in reversed(frames) if not _is_of_torch(frame.filename))
    where = "" if Path(__file__).parents[1] in Path(last.filename).parents else f" at {last.filename}:{last.lineno}"
    message = " ".join(str(error).split()).rstrip(".")
    return ConfigError(
        f"a {stage} batch cannot be scored, before the first update{where}: {message}. "
        "Choose data, a net, a loss and metrics that fit each other."
    )


def _is_of_torch(file: str) -> bool:
    return any(Path(str(package.__file__)).parent in Path(file).parents for package in (torch, torchmetrics))


def _check_scalar(what: str, monitor: str, values: Mapping[str, float], arrays: Mapping[str, Any]) -> None:
    name = monitor.removeprefix("val/")
    if name in values:
        return
    inside = [f"val/{other}" for other in values if other.startswith(f"{name}/")]
    if inside:
        raise ConfigError(
            f"{what}={monitor} is {len(inside)} numbers, and one must decide: choose one, such as {inside[0]}."
        )
    kind = "is no single number" if name in arrays else "is not computed"
    raise ConfigError(f"{what}={monitor} {kind}: choose one of {', '.join(f'val/{one}' for one in values)}.")


def _eager(net: nn.Module) -> AbstractContextManager:
    """No compilation: the shapes of a batch that is not trained on would change what is compiled for training."""
    if getattr(net, "_compiled_call_impl", None) is None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Afterwards modes, buffers and attributes of all modules are as before; attributes of nested objects may not be.

    Containers that modules hold keep their contents, as far as they are dicts, lists or sets.
    """
    modes = [(part, part.training) for part in module.modules()]
    parts = [part for part in module.modules() if part is not module]
    buffers = [(value, value.detach().clone()) for value in module.buffers()]
    before = [(part, _attributes(part)) for part in parts]
    try:
        yield
    finally:
        for part, attributes in before:
            for name in _attributes(part).keys() - attributes.keys():
                del vars(part)[name]
            for name, (value, contents) in attributes.items():
                vars(part)[name] = value
                if isinstance(value, list):
                    value[:] = contents
                elif contents is not None:
                    value.clear()
                    value.update(contents)
        for value, saved in buffers:
            value.copy_(saved)
        for part, mode in modes:
            part.training = mode


def _attributes(part: nn.Module) -> dict[str, tuple[Any, Any]]:
    """The own attributes of a module, each with a copy of its contents where it is a plain container."""
    own = {name: value for name, value in vars(part).items() if name not in OF_TORCH}
    return {
        name: (value, value.copy() if isinstance(value, dict | list | set) else None) for name, value in own.items()
    }
