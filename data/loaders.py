"""Data from the `DataLoader`s of a project: their data sets, collate functions and workers are taken over."""

from collections.abc import Mapping
from copy import copy
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from data.dataset import Datasets, Given, made
from data.streamed import Streamed, is_streamed
from data.tree import alongside, fingerprint


class Loaders(Datasets):
    """Training, validation and test data from `DataLoader`s, or functions that return them.

    Training samples of a map-style set come in the order of the run: a new permutation each epoch, whatever the loader
    says of shuffling. The loader's batch size must be `batch_size`. An iterable set keeps its order. Each validation
    and test sample is scored once, in batches as large as the loaders' if `eval_batch_size` is not given. A loader of
    another class is taken over if its batches are those of a `DataLoader` of its `dataset` and `batch_size`. `shape`,
    `sharded` and `reread` are those of `data.dataset.Datasets`.
    """

    def __init__(self, *, train: Any = None, val: Any = None, test: Any = None, **base: Any) -> None:
        for name in {"collate_fn", "num_workers"} & set(base):
            raise ValueError(f"data.{name} is that of the loader: set it there.")
        super().__init__(train=train, val=val, test=test, **base)
        self._takes_eval_batch_size = base.get("eval_batch_size") is None

    @property
    def order_note(self) -> str:
        note = super().order_note
        return note if isinstance(self.splits.train, Streamed) else f"{note}; the loader's own order is not used"

    def parts(self) -> Mapping[str, Given | None]:
        loaders = {
            name: checked_loader(f"data.{name}", loader)
            for name, loader in self.loaders().items()
            if loader is not None
        }
        if "train" in loaders and (size := loaders["train"].batch_size) != self.batch_size:
            raise ValueError(
                f"data.batch_size={self.batch_size}, but the loader of data.train has batches of {size}: "
                f"set data.batch_size={size}, or give the loader the number of data.batch_size."
            )
        sizes = [int(loader.batch_size or 0) for name, loader in loaders.items() if name != "train"]
        if sizes and self._takes_eval_batch_size:
            self.eval_batch_size = min(sizes)
        return {name: as_given(loaders[name]) if name in loaders else None for name in ("train", "val", "test")}

    def loaders(self) -> dict[str, Any]:
        """The loaders by use; None where there is none."""
        return {name: made(f"data.{name}", given) for name, given in self.given.items()}


def checked_loader(key: str, loader: Any) -> DataLoader:
    """The loader. ValueError for several, and for one that chooses its samples in a way of its own."""
    if isinstance(loader, list | tuple) and len(loader) == 1:
        loader = loader[0]
    if not isinstance(loader, DataLoader):
        if not _gives_samples(loader):
            raise ValueError(
                f"{key} gives a {type(loader).__name__}, but one torch.utils.data.DataLoader is needed, or a loader "
                "with the same batches from its dataset and batch_size: give one, or the data set by data=dataset."
            )
        loader = DataLoader(loader.dataset, loader.batch_size)
    if loader.batch_size is None and loader.batch_sampler is None:
        raise ValueError(f"{key} has batch_size=None, so its data set makes whole batches: let it give single samples.")
    streamed = is_streamed(loader.dataset)
    sampler = loader.sampler if type(loader.batch_sampler) is BatchSampler else loader.batch_sampler
    if loader.batch_size is None or not (streamed or _takes_each_once(sampler)):
        raise ValueError(
            f"{key} has a {type(sampler).__name__}, but the run itself orders the samples, so that it can resume "
            "exactly: set data.sampling, or give a data set of the chosen samples, such as torch.utils.data.Subset."
        )
    return loader


def _gives_samples(loader: Any) -> bool:
    """Whether a loader of another class gives what `DataLoader(loader.dataset, loader.batch_size)` would.

    Its first batch without `shuffle`, and the number of its batches, are compared with those of torch.
    """
    dataset: Any = getattr(loader, "dataset", None)
    size = getattr(loader, "batch_size", None)
    sized = all(hasattr(dataset, name) for name in ("__len__", "__getitem__")) and not isinstance(dataset, list | tuple)
    if not sized or not isinstance(size, int) or size < 1 or not hasattr(loader, "__len__"):
        return False
    ordered = copy(loader)
    if hasattr(ordered, "shuffle"):
        ordered.shuffle = False
    plain = DataLoader(dataset, size)
    try:
        pair = [next(iter(one)) for one in (ordered, plain)]
        alongside(*pair)
    except (StopIteration, TypeError, ValueError, LookupError):
        return False
    return len(loader) == len(plain) and fingerprint(pair[0]) == fingerprint(pair[1])


def _takes_each_once(sampler: Any) -> bool:
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return type(sampler) in (SequentialSampler, DistributedSampler)


def as_given(loader: DataLoader) -> Given:
    """The data set of a loader, and how it reads it."""
    options: dict[str, Any] = {}
    if loader.num_workers:
        names = ("prefetch_factor", "timeout", "multiprocessing_context", "worker_init_fn")
        options = {name: getattr(loader, name) for name in names}
    collate_fn = None if loader.collate_fn is default_collate else loader.collate_fn
    return Given(loader.dataset, loader.num_workers, collate_fn, options)
