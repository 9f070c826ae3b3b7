"""One number for each sample of a source: labels, lengths, weights. Found where the data keeps them, else read.

A map-style data set keeps them in an attribute (`targets`, `labels`, `lengths`, `weights`) or in a column. Without
those, every sample is read once, with a line about the progress.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from data.order import mix
from data.seeds import restored_generators, seed_generators
from data.source import Memory, Source, Workers
from data.tree import mapped

NAMES = {
    "labels": ("targets", "labels", "label", "target", "y"),
    "lengths": ("lengths", "length"),
    "weights": ("weights", "weight", "sample_weights"),
}
"""Under which names a data set may keep them."""
_SECONDS = 5.0


def per_sample(source: Source, name: str, function: Callable[[Any], Any] | None = None) -> Tensor:
    """`name` (labels, lengths, weights) of every sample; `function` gives it for one sample. ValueError without any."""
    known = None if function else _known(source, name)
    if known is None:
        known = _read(source, name, function or _of_sample(name))
    try:
        found = torch.as_tensor(known)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"data.sampling: {name} such as {_first(known)!r} are no numbers: give one for each sample, as a function "
            f"of a sample (data.sampling.{name})."
        ) from error
    if tuple(found.shape) != (len(source),) or (name == "labels" and (found.is_floating_point() or found.is_complex())):
        raise ValueError(
            f"data.sampling: {name} are {found.dtype} of shape {tuple(found.shape)}, for {len(source)} samples: give "
            f"one {'whole ' * (name == 'labels')}number for each, as a function of a sample (data.sampling.{name})."
        )
    return found.cpu()


def known_labels(source: Source) -> Tensor | None:
    """A class for each sample, where the data keeps them in a place that needs no reading of samples."""
    found = _known(source, "labels")
    if found is None:
        return None
    labels = torch.as_tensor(found).cpu()
    whole = not (labels.is_floating_point() or labels.is_complex())
    return labels if whole and tuple(labels.shape) == (len(source),) else None


def labels_in(dataset: Any) -> Any:
    """What a map-style data set keeps as its labels; None where it keeps none."""
    return _in_dataset(dataset, "labels")


def _known(source: Source, name: str) -> Any:
    if isinstance(source, Memory):
        return _in_memory(source.stored, name)
    return _in_dataset(source.dataset, name) if isinstance(source, Workers) else None


def _in_memory(stored: Any, name: str) -> Any:
    if isinstance(stored, Mapping):
        found = next((stored[key] for key in NAMES[name] if key in stored), None)
        return (
            stored["attention_mask"].sum(1)
            if found is None and name == "lengths" and "attention_mask" in stored
            else found
        )
    pair = isinstance(stored, tuple) and len(stored) == 2
    return stored[1] if pair and name == "labels" and isinstance(stored[1], Tensor) else None


def _in_dataset(dataset: Any, name: str) -> Any:
    """What the data set keeps under one of the names, through subsets and joined sets."""
    if isinstance(dataset, Subset):
        found = _in_dataset(dataset.dataset, name)
        return None if found is None else torch.as_tensor(found)[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_in_dataset(part, name) for part in dataset.datasets]
        return None if any(part is None for part in parts) else torch.cat([torch.as_tensor(part) for part in parts])
    if isinstance(dataset, TensorDataset):
        vectors = [tensor for tensor in dataset.tensors[1:] if tensor.ndim == 1]
        return vectors[0] if name == "labels" and len(vectors) == 1 else None  # which of several is not known
    columns = getattr(dataset, "column_names", None)
    if isinstance(columns, list):
        column = next((key for key in NAMES[name] if key in columns), None)
        return None if column is None else _numbers(list(dataset.with_format(None)[column]), len(dataset))
    kept = (_numbers(getattr(dataset, key, None), len(dataset)) for key in NAMES[name])
    return next((found for found in kept if found is not None), None)


def _numbers(found: Any, count: int) -> Tensor | None:
    """Numbers for `count` samples; None for anything else, such as names of classes."""
    if isinstance(found, str) or not (isinstance(found, Tensor | Sequence) or hasattr(found, "__array__")):
        return None
    try:
        numbers = torch.as_tensor(found if isinstance(found, Tensor | Sequence) else np.asarray(found))
    except (TypeError, ValueError, RuntimeError):
        return None
    return numbers if numbers.ndim and len(numbers) == count else None


def _first(values: Any) -> Any:
    """The first value that is no number, or else the first."""
    return next((value for value in values if not isinstance(value, int | float)), values[0])


def _of_sample(name: str) -> Callable[[Any], Any]:
    def value(sample: Any) -> Any:
        if isinstance(sample, Mapping):
            for key in (*NAMES[name], *(("input_ids",) if name == "lengths" else ())):
                if key in sample:
                    return len(sample[key]) if key == "input_ids" else sample[key]
        elif isinstance(sample, tuple | list) and len(sample) == 2 and name != "weights":
            return len(sample[0]) if name == "lengths" else sample[1]
        raise ValueError(
            f"data.sampling needs {name}, which this data does not tell: give a function of a sample as "
            f"data.sampling.{name}, or let the data set have an attribute {NAMES[name][0]}."
        )

    return value


def _read(source: Source, name: str, function: Callable[[Any], Any]) -> list[Any]:
    """`function` of every sample, each read as if it were drawn, so that all processes find the same."""
    found, begun, shown = [], time.monotonic(), time.monotonic()
    with restored_generators():
        for i, sample in enumerate(_samples(source, name)):
            value = function(sample)
            found.append(value.item() if isinstance(value, Tensor) else value)
            if (now := time.monotonic()) - shown > _SECONDS:
                shown = now
                print(f"data: {name} of {i + 1} of {len(source)} samples read, {now - begun:.0f} s", file=sys.stderr)
    return found


def _samples(source: Source, name: str) -> Iterator[Any]:
    if isinstance(source, Memory):
        for i in range(len(source)):
            yield mapped(source.stored, itemgetter(i))
    elif isinstance(source, Workers):
        for i in range(len(source)):
            seed_generators(mix(0, i))
            yield source.dataset[i]
    else:
        raise ValueError(f"data.sampling needs {name}, which {type(source).__name__} does not tell: leave it out.")
