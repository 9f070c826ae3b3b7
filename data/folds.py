"""k-fold cross-validation: training and validation samples together are dealt out anew; test samples stay."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from data.bounds import integer
from data.order import Pick, mix
from data.per_sample import known_labels
from data.source import Memory, Source, Workers
from data.tree import alongside, fingerprint, mapped

_COMPARED = 8  # samples
_DRAW = -2  # tells the draw of the folds from that of an epoch


class Fold(NamedTuple):
    """Part `fold` of `folds` validates, and the others train."""

    folds: int
    fold: int


def checked_fold(folds: int | None, fold: int | None) -> Fold | None:
    """The fold of two settings; None where both are None. ValueError where one is missing or out of range."""
    if folds is None and fold is None:
        return None
    if folds is None:
        raise ValueError(f"data.fold={fold} is one of a number of folds: set data.folds, such as data.folds=5.")
    integer("data.folds", folds, low=2)
    if fold is None:
        raise ValueError(f"data.folds={folds}: set data.fold from 0 to {folds - 1}, or all by -m data.fold=0,1,….")
    if integer("data.fold", fold, low=0) >= folds:
        raise ValueError(f"data.fold={fold} must be below data.folds={folds}.")
    return Fold(folds, fold)


def training_size(samples: int, fold: Fold) -> int:
    """N - ⌊N / k⌋, less one where fold < N mod k, of N = `samples`.

    >>> [training_size(12, Fold(5, fold)) for fold in range(5)]
    [9, 9, 10, 10, 10]
    """
    return samples - samples // fold.folds - (fold.fold < samples % fold.folds)


def fold_numbers(samples: int, folds: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """The fold of each sample, (samples,) int64, by `seed`.

    The samples are dealt out in turn in a random order, with `labels` class after class: the sizes of two folds differ
    by one at most, and so do their numbers of samples of any class.
    """
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(mix(seed, folds, _DRAW)))
    if labels is not None:
        order = order[labels[order].argsort(stable=True)]
    numbers = torch.empty(samples, dtype=torch.int64)
    numbers[order] = torch.arange(samples) % folds
    return numbers


def check_apart(val: Source | None, test: Source | None, fold: Fold) -> None:
    """ValueError where the same samples validate and test: dealt out, those of the test would train."""
    if isinstance(val, Workers) and isinstance(test, Workers) and _same(val, test):
        raise ValueError(
            f"data.folds={fold.folds}: data.val and data.test hold the same samples, and those of data.test would "
            "train: leave data.val out."
        )


def in_folds(train: Source, val: Source | None, fold: Fold, seed: int) -> tuple[Source, Source]:
    """Training and validation samples of a fold; stratified by class where the data keeps a class for each sample."""
    pool = train if val is None else _joined(train, val)
    if len(pool) < fold.folds:
        raise ValueError(f"data.folds={fold.folds} is more than the {len(pool)} samples: take fewer.")
    numbers = fold_numbers(len(pool), fold.folds, seed, known_labels(pool))
    mine = numbers == fold.fold
    return _subset(pool, (~mine).nonzero()[:, 0]), _subset(pool, mine.nonzero()[:, 0])


def _same(one: Workers, other: Workers) -> bool:
    """Whether two sources read one data set, or as many samples of which the first ones are equal."""
    if one.dataset is other.dataset or len(one) != len(other) or not len(one):
        return one.dataset is other.dataset
    pick = Pick(0, torch.arange(min(_COMPARED, len(one))))
    return fingerprint(one.read(pick)) == fingerprint(other.read(pick))


def _joined(train: Source, val: Source) -> Source:
    if isinstance(train, Memory) and isinstance(val, Memory) and train.prepare == val.prepare:
        try:
            more = iter(alongside(train.stored, val.stored))
        except ValueError as error:
            raise ValueError(
                f"data.folds joins training and validation samples, and {error}: give both alike."
            ) from error
        return Memory(mapped(train.stored, lambda tensor: torch.cat([tensor, next(more)])), train.prepare)
    if isinstance(train, Workers) and isinstance(val, Workers):
        return _over(train, ConcatDataset([train.dataset, val.dataset]))
    raise ValueError(
        f"data.folds needs samples that can be dealt out anew, and {type(train).__name__} with {type(val).__name__} "
        "cannot: leave data.folds and data.fold out."
    )


def _over(source: Workers, dataset: Dataset) -> Workers:
    return Workers(dataset, source.num_workers, source.collate_fn, source.prepare, source.options)


def _subset(source: Source, indices: Tensor) -> Source:
    if isinstance(source, Memory):
        return Memory(mapped(source.stored, lambda tensor: tensor.index_select(0, indices)), source.prepare)
    if isinstance(source, Workers):
        return _over(source, Subset(source.dataset, indices.tolist()))
    raise ValueError(
        f"data.folds needs samples that can be dealt out anew, and {type(source).__name__} cannot: leave it out."
    )
