"""The base class of every data set: what the trainer needs of it, and its loaders."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningDataModule

from data.bounds import integer
from data.order import Layout, Order, Pick, mix, permutation
from data.shard import Shard
from data.source import Source, Workers
from data.stream import Clock, Loop, MicroBatch, Stream, Transform, augmented
from data.tree import fingerprint


class Splits(NamedTuple):
    """The samples of a data set by their use; `test` may be the same source as `val`."""

    train: Source
    val: Source | None = None
    test: Source | None = None


class DataModule(LightningDataModule):
    """A subclass defines `read`. It may define `shape`, and set `augment` if training batches are augmented.

    `batch_size` is per device and micro-batch. `samples` declares the training samples of an epoch, so that a plan can
    be made without reading the data; `setup` checks it. `tokens_per_sample` is for durations in tokens.
    """

    augment: Transform | None = None

    def __init__(
        self,
        *,
        batch_size: int,
        samples: int | None = None,
        tokens_per_sample: int | None = None,
        seed: int = 0,
        eval_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = integer("data.batch_size", batch_size)
        self.eval_batch_size = integer(
            "data.eval_batch_size", 4 * self.batch_size if eval_batch_size is None else eval_batch_size
        )
        self.samples = None if samples is None else integer("data.samples", samples)
        self.tokens_per_sample = (
            None if tokens_per_sample is None else integer("data.tokens_per_sample", tokens_per_sample)
        )
        self.seed = integer("data.seed", seed, low=0)
        self._splits: Splits | None = None
        self._clock: Clock | None = None
        self._loop = Loop(total=1, validation_interval=1)

    def read(self) -> Splits:
        """Read the samples."""
        raise NotImplementedError(f"{type(self).__name__} has no method read: let it return Splits.")

    @property
    def shape(self) -> dict[str, int]:
        """The numbers a model needs, such as in_features, in_channels, classes, vocab_size, context."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        """Read the data, once. ValueError if the declared `samples` is wrong, or a split is empty."""
        if self._splits is not None:
            return
        splits = self.read()
        if self.samples not in (None, len(splits.train)):
            raise ValueError(
                f"data.samples={self.samples}, but the data holds {len(splits.train)} training samples: correct it."
            )
        for name, source in splits._asdict().items():
            if source is not None and not len(source):
                raise ValueError(f"data.{name} has no samples: give some, or leave it out.")
        self._splits = splits

    @property
    def splits(self) -> Splits:
        """The samples by use, after `setup`."""
        if self._splits is None:
            raise RuntimeError("the data has not been read: call setup() first.")
        return self._splits

    @property
    def train_samples(self) -> int:
        """The number of training samples."""
        return len(self.splits.train)

    def follow(self, clock: Clock, loop: Any) -> None:
        """Connect the training loader to the clock of a run, before it starts; `loop` has the fields of `Loop`."""
        values = {field.name: getattr(loop, field.name) for field in fields(Loop)}
        self._clock, self._loop = clock, Loop(**values)

    def train_dataloader(self) -> Stream:
        """This rank's part of every global batch, from the update that the clock shows."""
        if self._clock is None:
            raise RuntimeError("the training loader has no clock: call follow() first.")
        source = self.splits.train.to(self._device)
        layout = self._layout(self.batch_size, self._loop.accumulate)
        order = Order(len(source), self.seed, layout, source.home, self._loop.stages)
        return Stream(source, order, self._clock, self._loop, self.augment)

    def val_dataloader(self) -> Shard | list:
        """This rank's part of the validation split; an empty list where there is none."""
        return self._evaluation(self.splits.val)

    def test_dataloader(self) -> Shard | list:
        """This rank's part of the test split; an empty list where there is none."""
        return self._evaluation(self.splits.test)

    def validation_samples(self, count: int) -> Any:
        """The first `count` validation samples as one batch, on the device of the run."""
        source = self.splits.val
        if source is None:
            raise RuntimeError("there is no validation data.")
        source = source.to(self._device)
        return next(source.batches([Pick(0, torch.arange(count, device=source.home))]))

    def random_batches(self, seed: int, t: int, size: int, count: int) -> Iterator[MicroBatch]:
        """`count` micro-batches of `size` training samples, drawn one by one with replacement by (seed, t)."""
        source = self.splits.train.to(self._device)
        draw = torch.Generator().manual_seed(mix(seed, t))
        indices = (torch.randint(len(source), (size,), generator=draw) for _ in range(count))
        picks = (Pick(0, drawn.to(source.home), mix(seed, t, i)) for i, drawn in enumerate(indices))
        for i, batch in enumerate(source.batches(picks)):
            yield augmented(batch, mix(seed, t, i), self.augment)

    def claims(self) -> dict[str, str]:
        """What this rank trains on, as short texts by name, which must be the same on all ranks."""
        source, batch = self.splits.train, self._layout(self.batch_size, self._loop.accumulate).global_batch
        picked = permutation(len(source), self.seed, 0)[:batch]
        first = Pick(0, picked[:8].to(source.home), self.seed)
        few = source.read(first) if isinstance(source, Workers) else next(source.batches([first]))
        return {
            "training samples": str(len(source)),
            "first batch": fingerprint(picked),
            "first samples": fingerprint(few),
        }

    def _evaluation(self, source: Source | None) -> Shard | list:
        return [] if source is None else Shard(source.to(self._device), self._layout(self.eval_batch_size))

    def _layout(self, batch_size: int, accumulate: int = 1) -> Layout:
        if self.trainer is None:
            return Layout(batch_size, accumulate)
        return Layout(batch_size, accumulate, self.trainer.world_size, self.trainer.global_rank)

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
