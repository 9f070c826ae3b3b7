"""The outputs of a trained net."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from trainer.engine.lightning_kind import lightning_class, overrides, positional
from trainer.engine.module import Module
from trainer.engine.step import HALF, ModelStep, PairStep, Step
from trainer.lr import ConfigError


def predictions(module: Module, trainer: pl.Trainer, batches: Iterable[Any]) -> Any:
    """The outputs of the module's net for all batches on its device, as one nest of tensors on the CPU."""
    found, precision, net = [], trainer.precision_plugin, module.net
    own = overrides(net, "predict_step")
    with torch.no_grad(), precision.forward_context():
        for i, batch in enumerate(map(precision.convert_input, batches)):
            outputs = _predict_step(net, batch, i) if own else outputs_of(net, module.step, batch, module.clock.t)
            found.append(tree_map(_on_cpu, outputs))
    return joined(found)


def outputs_of(net: nn.Module, step: Step, batch: Any, t: int) -> Any:
    """The outputs for a batch: of inputs alone, of pairs (inputs, targets), or of what the step takes.

    A LightningModule without a `predict_step` is called with the inputs, and so is the net of a `PairStep`.
    """
    if isinstance(step, ModelStep) and isinstance(batch, Mapping):
        found = net(**batch)
        return found if isinstance(found, Tensor) else getattr(found, "logits", found)
    of_inputs = isinstance(step, PairStep) or lightning_class(net) is not None
    if isinstance(batch, list | tuple) and (of_inputs or len(batch) == 1):
        _check_pair(batch, most=2 if isinstance(step, PairStep) else None)
        return net(batch[0])
    if of_inputs or isinstance(batch, Tensor):
        return net(batch)
    outputs = step(net, batch, t=t).outputs
    if outputs is None:
        raise ConfigError("task.step gives no outputs: return StepOutput(loss, outputs=…), or predict from inputs.")
    return outputs


def _check_pair(batch: Sequence[Any], most: int | None) -> None:
    """Refuse parts that no pair has, of which all but the first would be left out."""
    rows = [len(part) for part in batch if isinstance(part, Tensor) and part.ndim]
    if (most is not None and len(batch) > most) or len(set(rows)) > 1:
        found = f"tensors of {', '.join(map(str, rows))} rows" if len(set(rows)) > 1 else f"{len(batch)} parts"
        raise ConfigError(
            f"data is a {type(batch).__name__} with {found}, which is no pair (inputs, targets): give several batches "
            "one by one, as iter([FIRST, SECOND])."
        )


def _predict_step(net: Any, batch: Any, batch_idx: int) -> Any:
    """What a LightningModule of the user's gives for a batch."""
    return net.predict_step(*(batch, batch_idx, 0)[: max(1, positional(net.predict_step))])


def joined(parts: list[Any]) -> Any:
    """The outputs of all batches as one nest of tensors, joined along their first dimension."""
    return tree_map(_joined, *parts)


def _joined(*parts: Any) -> Any:
    if not isinstance(parts[0], Tensor):
        return parts[0] if len(parts) == 1 else list(parts)
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if not parts[0].ndim:
        return torch.stack(parts)
    if len(shapes) > 1:
        raise ConfigError(
            f"the outputs of the batches have the shapes {shapes[0]} and {shapes[-1]} beside the first dimension: "
            "pad all batches to one length, or predict one at a time."
        )
    return torch.cat(parts)


def _on_cpu(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return (value.float() if value.dtype in HALF else value).cpu()
