"""One batch is scored before the first update: what cannot be scored is refused before anything is trained."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from trainer.engine.failed_batch import OF_BATCHES, explained
from trainer.engine.step import PairStep, class_loss
from trainer.lr import ConfigError

OF_TORCH = frozenset(vars(nn.Module())) - {"_buffers"}
"""The attributes that every module has."""


def rehearse(trainer: pl.Trainer, module: Any) -> None:
    """Score the first validation batch in evaluation mode; the first test batch where no data validates.

    Net, loss, metrics and monitors go through all that a validation does, but nothing is logged. Weights, buffers,
    attributes of modules, modes, metrics and random generators are afterwards as they were. Raises `ConfigError` for
    what cannot be scored, for a callback of `module.monitors` whose metric is not computed, and for a label that is
    none of the net's classes, where the data keeps the labels.
    """
    stage, loader = _loader(trainer)
    if stage != "val":
        for callback, monitor in module.monitors.items():
            raise ConfigError(
                f"{callback}={monitor}, but the run never validates: leave it out, or give validation data."
            )
    if loader is None or not module.hooks.scored(stage):
        return
    with _as_it_was(module), module.hooks.rehearsing():
        batch = trainer.precision_plugin.convert_input(next(iter(loader)))
        batch = trainer.strategy.batch_to_device(batch)
        try:
            values, arrays = _scored(trainer, module, stage, batch)
        except OF_BATCHES as error:
            found = explained(error, f"a {stage} batch cannot be scored, before the first update")
            raise found from (None if found is error else error)
        _check_labels(trainer, module, batch)
    if stage == "val":
        watched = {"task.monitor": f"val/{module.task.monitor}", **module.monitors}
        for what, monitor in watched.items():
            _check_scalar(what, monitor, values, arrays)


def check_step(module: Any, batch: Any) -> None:
    """Let a step check the net on a batch, where it has a method `check(net, batch)`; nothing is changed by it."""
    if (check := getattr(module.step, "check", None)) is not None:
        with _as_it_was(module):
            check(module.net, batch)


def _scored(trainer: pl.Trainer, module: Any, stage: str, batch: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """The scores of one batch, by the calls of a whole pass."""
    scores, hooks, word = module.scores[stage], module.hooks, {"val": "validation"}.get(stage, stage)
    module.scores[stage] = deepcopy(scores) if not hooks.logs_scores else hooks.scores(module.task, stage)
    try:
        for hook in (f"on_{word}_model_eval", f"on_{word}_start", f"on_{word}_epoch_start"):
            hooks.call(hook)
        (trainer.strategy.validation_step if stage == "val" else trainer.strategy.test_step)(batch, 0)
        hooks.call(f"on_{word}_epoch_end")
        found = module.scores[stage].compute(), module.scores[stage].arrays
        hooks.call(f"on_{word}_end")
    finally:
        module.scores[stage] = scores
    return found


def _check_labels(trainer: pl.Trainer, module: Any, batch: Any) -> None:
    """Refuse labels of pairs that are none of the classes of the net, where the data keeps its labels."""
    check, step = getattr(getattr(trainer, "datamodule", None), "check_labels", None), module.step
    loss = class_loss(step.loss) if isinstance(step, PairStep) else None
    if check is None or loss is None:
        return
    with trainer.precision_plugin.forward_context():
        output = module.run_step(batch)
    if isinstance(output.outputs, Tensor) and output.outputs.ndim > 1 and not output.targets.is_floating_point():
        try:
            check(output.outputs.shape[1], loss.ignore_index)
        except ValueError as error:
            raise ConfigError(str(error)) from error


@contextmanager
def _as_it_was(module: Any) -> Iterator[None]:
    """In evaluation mode without gradients and compilation; afterwards all is as before."""
    with isolate_rng(), torch.no_grad(), eager(module.net), _restored(module):
        module.eval()
        module.control.reset()
        yield


def _loader(trainer: pl.Trainer) -> tuple[str, Any]:
    """The stage and the loader of what is scored first; None where nothing is."""
    if trainer.enable_validation and trainer.val_dataloaders is not None and any(trainer.num_val_batches):
        loaders = trainer.val_dataloaders
        return "val", loaders[0] if isinstance(loaders, list | tuple) else loaders
    data: Any = getattr(trainer, "datamodule", None)
    loader = data.test_dataloader() if data is not None else None
    return "test", loader if loader is not None and len(loader) else None


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


def eager(net: nn.Module) -> AbstractContextManager:
    """No compilation: the shapes of a batch that is not trained on would change what is compiled for training."""
    if getattr(net, "_compiled_call_impl", None) is None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def _restored(module: nn.Module) -> Iterator[None]:
    """Afterwards modes, buffers and attributes of all modules are as before; attributes of nested objects may not be.

    Tensors, generators, dicts, lists and sets that modules hold keep their contents.
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
                _put_back(value, contents)
        for value, saved in buffers:
            value.copy_(saved)
        for part, mode in modes:
            part.training = mode


def _attributes(part: nn.Module) -> dict[str, tuple[Any, Any]]:
    """The own attributes of a module, each with a copy of its contents where it has plain ones."""
    return {name: (value, _contents(value)) for name, value in vars(part).items() if name not in OF_TORCH}


def _contents(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.copy() if isinstance(value, dict | list | set) else None


def _put_back(value: Any, contents: Any) -> None:
    if isinstance(value, Tensor):
        if not torch.equal(value, contents):
            value.copy_(contents)
    elif isinstance(value, torch.Generator):
        value.set_state(contents)
    elif isinstance(value, list):
        value[:] = contents
    elif contents is not None:
        value.clear()
        value.update(contents)
