"""What metrics give, as numbers by name, and which direction of a metric is better."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.wrappers import MultitaskWrapper

from trainer.lr import ConfigError

Numbers = list[Any]
"""A matrix or a curve, as nested lists of numbers."""
CURVES = 1000
"""The most points of a curve."""


def numbers_by_name(name: str, value: Any, labels: Sequence[str] = ()) -> Iterator[tuple[str, float | Numbers]]:
    """What a metric has computed, with a name for each scalar, matrix or curve.

    A vector gives `name/0`, `name/1`, …, or `name/LABEL` where there are as many labels, such as names of classes; a
    mapping `name/KEY`. A matrix keeps its name, and more dimensions are split along the first one. A tuple, as curves
    are, gives `name/0`, `name/1`, …, with its vectors as lists.
    """
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from numbers_by_name(f"{name}/{key}", part, labels)
        return
    if isinstance(value, tuple | list):
        for i, part in enumerate(value):
            if isinstance(part, tuple | list):
                yield from numbers_by_name(f"{name}/{i}", part)
            else:
                one = _tensor(name, part)
                yield f"{name}/{i}", one.item() if one.numel() == 1 else one.tolist()
        return
    numbers = _tensor(name, value)
    if numbers.numel() == 1:
        yield name, numbers.item()
    elif numbers.ndim == 2:
        yield name, numbers.tolist()
    else:
        names = labels if len(labels) == len(numbers) else range(len(numbers))
        for label, part in zip(names, numbers.cpu()):
            yield from numbers_by_name(f"{name}/{label}", part)


def _tensor(name: str, value: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"task.metrics.{name} gives a {type(value).__name__}: take a metric of numbers.") from error


def check_length(name: str, numbers: Numbers, metric: object) -> None:
    """Refuse a curve that grows with the data."""
    curve = numbers and not isinstance(numbers[0], list)
    if curve and (getattr(metric, "thresholds", 0) is None or len(numbers) > CURVES):
        raise ConfigError(
            f"task.metrics.{name} is a curve with a point for each sample: give its metric fixed ones, thresholds=100."
        )


def direction(metric: Metric | MetricCollection, name: str = "") -> str | None:
    """The better direction of a metric, or of the number `name` in what it gives: min or max; None if not known."""
    parts: Any = ()
    if isinstance(metric, MetricCollection):
        parts = metric.items(keep_base=False, copy_state=False)
    elif isinstance(metric, MultitaskWrapper):
        parts = metric.items(flatten=False)
    for key, part in parts:
        if name == key or name.startswith(f"{key}/"):
            return direction(part, name[len(key) + 1 :])
    higher = getattr(metric, "higher_is_better", None)
    return None if higher is None else "max" if higher else "min"
