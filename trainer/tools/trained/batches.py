"""Batches on the device of a run, from data in any form."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from lightning_fabric.utilities.apply_func import move_data_to_device
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from trainer.lr import ConfigError
from trainer.lr.bounds import integer

SPLITS = ("train", "val", "test")


def on_device(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """The batches, one by one, on a device. Raises `ConfigError` at once where there are none."""
    left = iter(batches)
    for first in left:
        return (move_data_to_device(batch, device) for batch in chain([first], left))
    raise ConfigError("the data has no samples.")


def batches_of(
    data: Any, size: int, collate_fn: Callable[[list[Any]], Any] | None = None, stage: str = "test"
) -> Iterable[Any]:
    """The batches of inputs, pairs, a data set or a loader, in their order; `size` samples each where we make them.

    `collate_fn` makes a batch of samples of a data set; None: as torch does. `stage` is test or predict: a data module
    gives its loader for that, and its test data where it has none for predictions.
    """
    integer("batch_size", size, "it is a number of samples, at least 1.")
    if hasattr(data, "test_dataloader") and hasattr(data, "setup"):  # of pytorch_lightning or lightning.pytorch
        return _of_module(data, stage)
    if stage == "predict":
        _check_order(data)
    if is_batch(data):
        return _slices(data, size)
    if isinstance(data, DataLoader):
        return data
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=size, collate_fn=collate_fn)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, list | tuple):
        return DataLoader(data, batch_size=size, collate_fn=collate_fn)  # a data set of another library
    if isinstance(data, Iterable):
        return data
    raise ConfigError(f"data is a {type(data).__name__}: give tensors, a data set, a DataLoader or a split's name.")


def _of_module(module: Any, stage: str) -> Iterable[Any]:
    loader = None
    module.prepare_data()
    for kind in ("predict", "test") if stage == "predict" else ("test",):
        if not _has(module, f"{kind}_dataloader"):
            continue
        module.setup(kind)
        try:
            loader = getattr(module, f"{kind}_dataloader")()
            break
        except NotImplementedError:  # as a module may answer that has no such data
            continue
    if stage == "predict":
        _check_order(loader)
    return _found(loader, f"this data module has no {kind} data: give one of its loaders.")


def _has(module: Any, name: str) -> bool:
    """Whether a data module has a method of its own, beside Lightning's."""
    home = getattr(getattr(module, name, None), "__module__", "lightning")
    return home.partition(".")[0] not in ("pytorch_lightning", "lightning")


def _check_order(loader: Any) -> None:
    """Refuse a loader that shuffles, of torch or with an attribute `shuffle`."""
    if isinstance(loader, DataLoader):
        shuffles = isinstance(loader.sampler, RandomSampler)
    else:
        shuffles = getattr(loader, "shuffle", False) is True
    if shuffles:
        raise ConfigError(
            f"the {type(loader).__name__} shuffles, and predictions are in the order of the data: set shuffle=False."
        )


def split_of(module: Any, split: str) -> Iterable[Any]:
    """A split of a run's data, in order. Raises `ConfigError` where the data has none of this name."""
    if split not in SPLITS:
        raise ConfigError(f"data={split!r} is not a split: choose {', '.join(SPLITS)}.")
    try:
        if split == "train":
            loader = module.evaluation_dataloader(split) if hasattr(module, "evaluation_dataloader") else []
        else:
            loader = module.val_dataloader() if split == "val" else module.test_dataloader()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return _found(loader, f"the data of this run has no {split} split.")


def is_batch(data: Any) -> bool:
    """Whether this is one batch: a tensor, or a nest with a tensor at its top level."""
    if isinstance(data, Tensor) or (is_dataclass(data) and not isinstance(data, type)):
        return True
    parts = data.values() if isinstance(data, Mapping) else data if isinstance(data, list | tuple) else ()
    nested = isinstance(data, Mapping | tuple)
    return any(isinstance(part, Tensor) or (nested and isinstance(part, Mapping)) for part in parts)


def _slices(batch: Any, size: int) -> Iterator[Any]:
    """A batch of tensors of one length in slices of `size`; any other nest stays one batch."""
    leaves = tree_leaves(batch)
    lengths = {len(leaf) if isinstance(leaf, Tensor) and leaf.ndim else None for leaf in leaves}
    if len(lengths) != 1 or None in lengths:
        return iter([batch])
    (length,) = lengths
    return (tree_map(partial(_slice, i, i + size), batch) for i in range(0, length or 0, size))


def _slice(begin: int, end: int, leaf: Tensor) -> Tensor:
    return leaf[begin:end]


def _found(loader: Any, otherwise: str) -> Iterable[Any]:
    if loader is None or (hasattr(loader, "__len__") and not len(loader)):
        raise ConfigError(otherwise)
    found: Iterable[Any] = loader
    return found
