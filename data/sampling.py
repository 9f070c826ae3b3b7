"""Which samples an epoch takes, and in which order: pure functions (samples, seed, epoch) -> indices.

Each gives `samples` indices, int64 on the CPU; of these, an epoch uses the first samples // B · B. What a function
needs of the data, it names as an argument without a default, and `fitted` sets it: `labels`, `lengths` and `weights`
have a number for each sample, `batch_size` is the global batch B.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.bounds import existing, integer
from data.order import mix, permutation
from data.per_sample import NAMES, per_sample
from data.source import Source

Sampling = Callable[[int, int, int], Tensor]


def weighted(samples: int, seed: int, epoch: int, *, weights: Tensor) -> Tensor:
    """Draws with replacement: sample i with probability wᵢ / Σ w, each time.

    `weights` has a finite number of at least 0 for each sample. The draws invert the cumulated weights in double
    precision, which has no limit on the number of samples; a sample of weight 0 is never drawn.

    >>> weighted(4, seed=0, epoch=0, weights=torch.tensor([0.0, 1.0, 0.0, 0.0])).tolist()
    [1, 1, 1, 1]
    """
    cumulated = _checked(weights, samples).cumsum(0)
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    drawn = torch.rand(samples, dtype=torch.float64, generator=generator) * cumulated[-1]
    last = int(torch.searchsorted(cumulated, cumulated[-1:]))  # the last sample that has a weight
    return torch.searchsorted(cumulated, drawn, right=True).clamp_(max=last)


def balanced(
    samples: int, seed: int, epoch: int, *, labels: Tensor, weights: Sequence[float] | Tensor | None = None
) -> Tensor:
    """Equally many samples of each class, or numbers in proportion to `weights`, one for each class.

    `labels` (samples,) are whole numbers; the classes are those that occur, in their order. Within a class, samples are
    drawn equally often: their numbers of draws in an epoch differ by one at most.

    >>> labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1])
    >>> labels[balanced(8, seed=0, epoch=0, labels=labels)].bincount().tolist()
    [4, 4]
    """
    classes, counts = labels.unique(return_counts=True)
    if weights is None:
        weights = torch.ones(len(classes))
    share = _checked(torch.as_tensor(weights), len(classes), "classes")
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    draws = _apportioned(samples, share / share.sum(), generator)
    taken = []
    for members, wanted in zip(labels.argsort(stable=True).split(counts.tolist()), draws.tolist()):
        rounds = [torch.randperm(len(members), generator=generator) for _ in range(-(-wanted // len(members)))]
        if rounds:
            taken.append(members[torch.cat(rounds)[:wanted]])
    drawn = torch.cat(taken)
    return drawn[torch.randperm(samples, generator=generator)]


def bucketed(
    samples: int, seed: int, epoch: int, *, lengths: Tensor, batch_size: int, batches_per_bucket: int = 50
) -> Tensor:
    """Batches of samples of similar length, each sample once, the batches in random order.

    The permutation of the epoch is cut into buckets of `batches_per_bucket` batches. Each bucket is sorted by length
    and cut into batches, as `group_by_length` of transformers does. What does not fill a batch comes last.
    """
    integer("data.sampling.batches_per_bucket", batches_per_bucket)
    order = permutation(samples, seed, epoch)
    buckets = [bucket[lengths[bucket].argsort(stable=True)] for bucket in order.split(batches_per_bucket * batch_size)]
    order, batches = torch.cat(buckets), samples // batch_size
    shuffled = torch.randperm(batches, generator=torch.Generator().manual_seed(mix(seed, epoch, 1)))
    batched = order[: batches * batch_size].view(batches, batch_size)[shuffled]
    return torch.cat([batched.flatten(), order[batches * batch_size :]])


SAMPLINGS: dict[str, Callable[..., Tensor]] = {
    "permutation": permutation,
    "balanced": balanced,
    "bucketed": bucketed,
    "weighted": weighted,
}
"""The functions by the names that `data.sampling` may have."""


def fitted(sampling: str | Callable[..., Tensor], source: Source) -> Callable[..., Tensor]:
    """The function that `data.sampling` names, with what it needs of the training samples; `batch_size` may be left.

    An argument `labels`, `lengths` or `weights` that is set to a function becomes what this gives for each sample.
    """
    if isinstance(sampling, str):
        if sampling not in SAMPLINGS:
            raise ValueError(f"data.sampling={sampling!r} is unknown: use {', '.join(SAMPLINGS)}, or a function.")
        sampling = SAMPLINGS[sampling]
    set_already = sampling.keywords if isinstance(sampling, partial) else {}
    bound: dict[str, Any] = {}
    for name, parameter in inspect.signature(sampling).parameters.items():
        if name not in NAMES:
            continue
        given = set_already.get(name)
        if callable(given) or parameter.default is parameter.empty:
            bound[name] = per_sample(source, name, given)
        elif given is not None:
            bound[name] = sample_weights(given) if name == "weights" else torch.as_tensor(given)
    return partial(sampling, **bound)


def with_batch(sampling: Callable[..., Tensor], batch_size: int) -> Sampling:
    """`sampling` with the global batch, where it takes one that is not set."""
    wanted = inspect.signature(sampling).parameters.get("batch_size")
    return partial(sampling, batch_size=batch_size) if wanted and wanted.default is wanted.empty else sampling


def sample_weights(given: str | Sequence[float] | Tensor) -> Tensor:
    """Weights from a setting: numbers, or the path of a .npy or text file of numbers."""
    if not isinstance(given, str):
        return torch.as_tensor(given, dtype=torch.float64)
    path = existing("data.sampling.weights", given, "a .npy file, or a text file with a number in each line")
    try:
        found = np.load(path) if Path(path).suffix == ".npy" else np.loadtxt(path)
        return torch.from_numpy(np.atleast_1d(found).astype(np.float64))
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"data.sampling.weights={given} cannot be read as numbers: {reason}") from error


def _checked(weights: Tensor, count: int, of: str = "samples") -> Tensor:
    """The weights in double precision; ValueError where they are not `count` weights of which one is above 0."""
    if tuple(weights.shape) != (count,):
        raise ValueError(f"data.sampling.weights has the shape {tuple(weights.shape)} for {count} {of}: give one each.")
    wide = weights.double()
    unfit = ~(wide.isfinite() & (wide >= 0))
    if unfit.any():
        row = int(unfit.int().argmax())
        raise ValueError(f"data.sampling.weights has {wide[row]} at {row}: give finite numbers of at least 0.")
    if not wide.any():
        raise ValueError("data.sampling.weights are all 0: one must be above.")
    return wide


def _apportioned(total: int, share: Tensor, generator: torch.Generator) -> Tensor:
    """Whole numbers near total · share, of sum `total`: the largest remainders are rounded up, equal ones by lot."""
    exact = share * total
    numbers = exact.floor().long()
    lot = torch.randperm(len(share), generator=generator)
    by_remainder = lot[(exact - numbers)[lot].argsort(descending=True, stable=True)]
    numbers[by_remainder[: total - int(numbers.sum())]] += 1
    return numbers
