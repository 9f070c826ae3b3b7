"""The step: from a net and a batch to a loss, and the weight of that loss in a mean over batches."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType, SimpleNamespace
from typing import Any, Literal, NamedTuple, Protocol

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.nn import functional

from trainer.lr import ConfigError

HALF = (torch.float16, torch.bfloat16)
_CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)
_CLASS_FUNCTIONS = (functional.cross_entropy, functional.nll_loss)


class StepOutput(NamedTuple):
    """What a step gives for one batch.

    `loss` is a scalar, and a mean. `weight` is what that mean divides by: the number of tokens or pixels that count, or
    the sum of their class weights. None stands for the number of samples. The loss of an update is Σ wᵢ lossᵢ / Σ wᵢ
    over its micro-batches on all processes, and validation and test losses are so over all batches. A batch of weight 0
    does not count, even if its loss is nan. A step gives a weight for every batch or for none.

    `logs` are scalars by name, the same names for every batch: each update logs their means, with the same weights, as
    `train/NAME`. Metrics are computed from `outputs` and `targets`.

    A step of several losses has their factors as `loss_weights`, by name. It gives the losses themselves as `parts`
    (K,), `loss` as their weighted sum, and a `weight` for each (K,), which `weight_of` must tell before the forward
    pass; or None. Each loss is then a mean over all micro-batches with its own weights.
    """

    loss: Tensor
    weight: Tensor | float | None = None
    logs: Mapping[str, Tensor | float] = MappingProxyType({})
    outputs: Any = None
    targets: Any = None
    parts: Tensor | None = None


class Step(Protocol):
    """A function or an object that gives the loss of `net` on a batch; update `t` is the next to be applied.

    It may have a method `weight_of(batch)`, which gives the weight of a batch before its forward pass, or None. The
    gradients of an update are then made with their final scale, and otherwise scaled once at the end.
    """

    def __call__(self, net: nn.Module, batch: Any, *, t: int) -> StepOutput: ...


class PairStep(nn.Module):
    """loss(net(inputs), targets) for batches (inputs, targets), with outputs in at least float32.

    The weight is Σ w[target] over the targets that are not `ignore_index`, for `nn.CrossEntropyLoss` and `nn.NLLLoss`,
    and for their functions in `nn.functional`, whose mean divides by it. A loss of another kind may have a method
    `weight_of(targets)` that gives a scalar, or None for a mean over samples. Raises `ConfigError` for a loss that is
    not a mean.
    """

    def __init__(self, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        _check_mean(loss)
        if isinstance(loss, nn.Module) and type(loss).__module__.startswith("torch.nn."):
            # class weights are settings, and no part of a checkpoint
            for name, buffer in list(loss.named_buffers(recurse=False)):
                loss.register_buffer(name, buffer, persistent=False)
        self.loss = loss
        self.__dict__["loss"] = loss  # found without the search of nn.Module, which each update would pay for
        self.weigh: Callable[[Any], Tensor | None] | None = getattr(loss, "weight_of", None)
        counted = class_loss(loss)
        if self.weigh is None and counted is not None:
            self.weigh = partial(_class_weight, counted)

    def __call__(self, net: nn.Module, batch: Any, *, t: int) -> StepOutput:
        if type(batch) is not tuple or len(batch) != 2:
            _check_pair(batch)
        inputs, targets = batch
        outputs = net(inputs)
        if isinstance(outputs, Tensor) and outputs.dtype not in HALF:
            loss = self.loss(outputs, targets)
        else:
            outputs, targets = _widened(outputs), _widened(targets)
            with torch.autocast(tensors(outputs)[0].device.type, enabled=False):
                loss = self.loss(outputs, targets)
        weight = None if self.weigh is None else self.weigh(targets)
        return StepOutput(loss, weight, outputs=outputs, targets=targets)

    def weight_of(self, batch: Any) -> Tensor | None:
        """The weight of a batch (inputs, targets)."""
        return None if self.weigh is None else self.weigh(batch[1])

    def skip_count(self, occurs: Callable[[int], bool]) -> None:
        """Give no weights where they would only count targets, and none is ignored.

        `occurs(value)` is whether a target of the run may be `value`.
        """
        loss = class_loss(self.loss)
        if loss is not None and loss.weight is None and not occurs(loss.ignore_index):
            self.weigh = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PairStep":
        """Move and convert the tensors of the loss, but never below float32."""
        super()._apply(lambda tensor: converted(tensor, fn(tensor)), recurse)
        return self


class ModelStep:
    """The loss that a net gives itself: `net(**batch).loss`, for batches by name, as models of transformers take them.

    A net may also give a dictionary with "loss" and, for metrics, "logits".

    `weight` is what that loss is a mean over: "labels", the entries of batch["labels"] that are not `ignore_index`;
    "shifted_labels", the same without the first of each row, as causal language models are trained; None, samples.
    Metrics then compare each output with the label after it, as that loss does. With `flatten` they get outputs and
    labels of tokens as rows, (N, C) and (N,), which those of `torchmetrics.classification` need.
    """

    def __init__(
        self,
        weight: Literal["labels", "shifted_labels"] | None = "labels",
        ignore_index: int = -100,
        flatten: bool = False,
    ) -> None:
        if weight not in ("labels", "shifted_labels", None):
            raise ConfigError(f"task.step.weight={weight!r} is not known: choose labels, shifted_labels or null.")
        self.weight, self.ignore_index, self.flatten = weight, ignore_index, flatten

    def __call__(self, net: nn.Module, batch: Mapping[str, Any], *, t: int) -> StepOutput:
        found = net(**batch)
        loss = _field_of(found, "loss")
        if loss is None:
            raise ConfigError(
                f"task.step: {type(net).__name__} gives no loss for a batch of {', '.join(batch)}: "
                "add its labels to the batch, or take a step of your own."
            )
        outputs, targets = _widened(_field_of(found, "logits")), batch.get("labels")
        if self.weight == "shifted_labels" and outputs is not None:
            outputs, targets = outputs[:, :-1], batch["labels"][:, 1:]
        if self.flatten and outputs is not None and targets is not None:
            outputs, targets = outputs.flatten(0, -2), targets.flatten()
        return StepOutput(_widened(loss), self.weight_of(batch), outputs=outputs, targets=targets)

    def weight_of(self, batch: Mapping[str, Any]) -> Tensor | None:
        """The weight of a batch."""
        if self.weight is None:
            return None
        if "labels" not in batch:
            raise ConfigError(
                f"task.step.weight={self.weight} counts labels, and a batch has {', '.join(batch)}: add labels, or "
                "set task.step.weight=null if the loss is a mean over samples."
            )
        labels: Tensor = batch["labels"] if self.weight == "labels" else batch["labels"][..., 1:]
        return (labels != self.ignore_index).sum()

    def check(self, net: nn.Module, batch: Mapping[str, Any]) -> None:
        """Refuse a weight that counts other labels than the loss of `net`.

        A loss with only the first label of each row is a number above 0 where that label counts, and otherwise a mean
        over nothing: nan or 0. Causal models leave it out, since they compare each output with the label after it.
        """
        labels = batch.get("labels")
        if self.weight is None or labels is None or labels.ndim != 2 or labels.is_floating_point():
            return
        counted = labels[labels != self.ignore_index]
        if labels.shape[1] < 2 or not counted.numel():
            return
        first = torch.full_like(labels, self.ignore_index)
        first[:, 0] = counted.max()
        masks = {name: torch.ones_like(mask) for name, mask in batch.items() if name == "attention_mask"}
        loss = _field_of(net(**{**batch, **masks, "labels": first}), "loss")
        right = "labels" if torch.isfinite(loss) and loss > 0 else "shifted_labels"
        if right != self.weight:
            leaves = "counts" if right == "labels" else "leaves out"
            raise ConfigError(
                f"task.step.weight={self.weight}, but the loss of {type(net).__name__} {leaves} the first label of "
                f"each row, so its mean is over other labels: set task.step.weight={right}."
            )


def weighted(value: Tensor, weight: Tensor) -> Tensor:
    """value · weight; 0 where the weight is 0, also for a value of nan."""
    return torch.where(weight > 0, value, torch.zeros_like(value)) * weight.to(value.dtype)


def as_weight(weight: Tensor | float, device: torch.device) -> Tensor:
    """A weight as a scalar on `device`, in double precision where the device has it: counts stay whole numbers."""
    wide = torch.float32 if device.type == "mps" else torch.float64
    return torch.as_tensor(weight, device=device).detach().to(wide)


def tensors(tree: Any) -> list[Tensor]:
    """The tensors in a nest of tuples, lists, mappings and dataclasses, in order."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    apply_to_collection(tree, Tensor, keep)
    return found


def samples(batch: Any) -> int:
    """The number of samples in a batch: the length of its tensors. `ConfigError` where they have several lengths."""
    lengths = {len(tensor) for tensor in tensors(batch) if tensor.ndim}
    if len(lengths) != 1:
        found = f"tensors of {', '.join(map(str, sorted(lengths)))} rows" if lengths else "no tensor with rows"
        raise ConfigError(
            f"a batch has {found}, so its samples cannot be counted: return StepOutput(loss, weight=COUNT)."
        )
    return lengths.pop()


def check_output(output: Any) -> StepOutput:
    """What a step has given. Raises `ConfigError` where it is no `StepOutput`, or has something else than scalars."""
    if not isinstance(output, StepOutput):
        raise ConfigError(f"task.step returns a {type(output).__name__}: return trainer.engine.step.StepOutput(loss).")
    for name, value in {"loss": output.loss, **output.logs}.items():
        if isinstance(value, Tensor) and value.numel() != 1:
            raise ConfigError(f"task.step gives {name} with shape {tuple(value.shape)}: give one number for a batch.")
    return output


def _check_pair(batch: Any) -> None:
    """Refuse a batch that is no pair."""
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return
    found = f"a {type(batch).__name__}"
    if isinstance(batch, Mapping):
        found += f" with the keys {', '.join(map(str, batch))}"
    elif isinstance(batch, list | tuple):
        found += f" of {len(batch)}"
    raise ConfigError(
        f"a batch is {found}, and the step of this task takes pairs (inputs, targets): let the data give pairs, write "
        "a step (task.step), or take task=model for a net that gives its own loss."
    )


def _check_mean(loss: object) -> None:
    reduction = loss.keywords.get("reduction") if isinstance(loss, partial) else getattr(loss, "reduction", "mean")
    if reduction in ("sum", "none"):
        raise ConfigError(
            f"task.loss.reduction={reduction} does not give the mean of a batch, and an update is the mean of its "
            "micro-batches: take reduction=mean."
        )


def class_loss(loss: object) -> Any:
    """What has the `weight` and `ignore_index` of a loss of classes; None for another loss."""
    if isinstance(loss, _CLASS_LOSSES):
        return loss
    function, options = (loss.func, loss.keywords) if isinstance(loss, partial) else (loss, {})
    if function not in _CLASS_FUNCTIONS:
        return None
    return SimpleNamespace(weight=options.get("weight"), ignore_index=options.get("ignore_index", -100))


def _class_weight(loss: Any, targets: Tensor) -> Tensor | None:
    """Σ w[target] over the targets that are not ignored; None for targets that are probabilities of classes."""
    if targets.is_floating_point():
        return None
    counted = targets != loss.ignore_index
    if loss.weight is None:
        return counted.sum()
    return (loss.weight[targets.where(counted, 0)] * counted).sum()


def _field_of(found: Any, name: str) -> Any:
    return found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)


def _widened(tree: Any) -> Any:
    """The same nest with tensors of half precision in float32."""
    return apply_to_collection(tree, Tensor, lambda value: value.float() if value.dtype in HALF else value)


def converted(tensor: Tensor, moved: Tensor) -> Tensor:
    """`tensor` on the device of `moved` and in its dtype, or in float32 where that is a half."""
    return tensor.to(moved.device, torch.float32) if moved.dtype in HALF else moved
