"""Labels that are none of the classes of a net, found before training where the data keeps its labels."""

from typing import Any

import torch
from torch import Tensor

from data.order import Pick
from data.per_sample import known_labels
from data.source import Memory, Source, Workers


def check_labels(source: Source | None, split: str, classes: int, ignore_index: int) -> None:
    """ValueError for the first sample of a split with a label that is neither in [0, `classes`) nor `ignore_index`.

    The sample is read to see whether its batch has that label: a data set may change the labels that it keeps.
    """
    labels = _labels(source)
    if source is None or labels is None or labels.is_floating_point():
        return
    outside = _outside(labels, classes, ignore_index).flatten(1).any(1) if labels.ndim > 1 else None
    rows = (_outside(labels, classes, ignore_index) if outside is None else outside).nonzero()
    if not len(rows):
        return
    row = int(rows[0])
    pick = Pick(0, torch.tensor([row], device=source.home))
    batch = source.read(pick) if isinstance(source, Workers) else next(iter(source.batches([pick])))
    given = batch[1] if isinstance(batch, list | tuple) and len(batch) == 2 else None
    if isinstance(given, Tensor) and (wrong := given[_outside(given, classes, ignore_index)]).numel():
        raise ValueError(
            f"data.{split}: sample {row} has the label {wrong.flatten()[0].item()}, and the net gives {classes} "
            f"classes: give labels from 0 to {classes - 1}, or {ignore_index} for what does not count."
        )


def _labels(source: Any) -> Tensor | None:
    pair = isinstance(source, Memory) and isinstance(source.stored, tuple) and len(source.stored) == 2
    if pair:
        return source.targets if isinstance(source.targets, Tensor) else None
    return known_labels(source) if isinstance(source, Workers) else None


def _outside(labels: Tensor, classes: int, ignore_index: int) -> Tensor:
    return ((labels < 0) | (labels >= classes)) & (labels != ignore_index)
