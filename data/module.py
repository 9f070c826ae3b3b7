"""The base class of every data set: what the trainer needs of it, and its loaders."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from data.bounds import integer
from data.folds import check_apart, checked_fold, in_folds
from data.label_check import check_labels
from data.order import Layout, Order, Pick, mix
from data.per_sample import known_labels
from data.same_data import check_same_data
from data.sampling import fitted, with_batch
from data.shard import Shard
from data.source import Source, Workers
from data.stream import Clock, Loop, MicroBatch, Stream, Transform, augmented
from data.streamed import Position, Streamed
from data.streamed_loader import StreamedLoader
from data.tree import fingerprint, nonfinite_rows


class Splits(NamedTuple):
    """The samples of a data set by their use; `test` may be the same source as `val`."""

    train: Source | Streamed
    val: Source | None = None
    test: Source | None = None


class DataModule(LightningDataModule):
    """A subclass defines `read`. It may define `shape` and `after_split`, and set `augment` for training batches.

    `batch_size` is per device and micro-batch. `samples` and `val_samples` declare how many training and validation
    samples `read` gives, so that a plan can be made without reading the data; `setup` checks them. `tokens_per_sample`
    is for durations in tokens. `sampling` is a name of `data.sampling.SAMPLINGS`, or a function. With `folds`, both
    kinds of samples together are dealt out anew by `split_seed`, and part `fold` validates.

    `purpose` is what the data is read for, set before `setup`. With "test" and "predict" nothing trains: declared
    numbers of samples are not checked, and there is no sampling. With "predict", `read` may give inputs alone.
    """

    augment: Transform | None = None
    purpose: Literal["train", "test", "predict"] = "train"

    def __init_subclass__(cls, **options: Any) -> None:
        """Let the signature of a class whose `__init__` takes `**base` show what that may be."""
        super().__init_subclass__(**options)
        cls.__signature__ = _with_base_parameters(cls)  # type: ignore[attr-defined]

    def __init__(
        self,
        *,
        batch_size: int,
        samples: int | None = None,
        val_samples: int | None = None,
        tokens_per_sample: int | None = None,
        seed: int = 0,
        eval_batch_size: int | None = None,
        sampling: str | Callable[..., Tensor] | None = None,
        folds: int | None = None,
        fold: int | None = None,
        split_seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size = integer("data.batch_size", batch_size)
        self.eval_batch_size = integer(
            "data.eval_batch_size", 4 * self.batch_size if eval_batch_size is None else eval_batch_size
        )
        self.samples = None if samples is None else integer("data.samples", samples)
        self.val_samples = None if val_samples is None else integer("data.val_samples", val_samples, low=0)
        self.tokens_per_sample = (
            None if tokens_per_sample is None else integer("data.tokens_per_sample", tokens_per_sample)
        )
        self.seed = integer("data.seed", seed, low=0)
        self.sampling, self._sampling = sampling, None  # type: tuple[Any, Callable[..., Tensor] | None]
        self.fold, self.split_seed = checked_fold(folds, fold), integer("data.split_seed", split_seed, low=0)
        self._splits: Splits | None = None
        self._clock: Clock | None = None
        self._loop = Loop(total=1, validation_interval=1)
        self._stream: StreamedLoader | None = None
        self._begins = Position()
        self._fitted: dict[str, Any] | None = None

    def read(self) -> Splits:
        """Read the samples."""
        raise NotImplementedError(f"{type(self).__name__} has no method read: let it return Splits.")

    @property
    def shape(self) -> dict[str, int]:
        """The numbers a model needs, such as in_features, in_channels, classes, vocab_size, context."""
        return {}

    def after_split(self, splits: Splits) -> Splits:
        """What follows from the training samples, such as standardisation; called when folds have been made."""
        return splits

    def setup(self, stage: str | None = None) -> None:
        """Read the data, once. ValueError if a declared number of samples is wrong, or a split is empty."""
        if self._splits is not None:
            return
        splits = self.read()
        train = splits.train
        own_val = splits.val is not splits.test  # else the test samples validate
        held_out = len(splits.val) if splits.val is not None and own_val else 0
        if self.purpose == "train":
            self._check_declared(self.samples if isinstance(train, Streamed) else len(train), held_out)
        if self.fold is not None and train is not splits.test:
            pool = self._indexed(train, f"data.folds={self.fold.folds}")
            check_apart(splits.val if own_val else None, splits.test, self.fold)
            first, val = in_folds(pool, splits.val if own_val else None, self.fold, self.split_seed)
            splits = Splits(first, val, splits.test)
        splits = self.after_split(splits)
        for name, source in splits._asdict().items():
            if not (source is None or isinstance(source, Streamed) or len(source)):
                raise ValueError(f"data.{name} has no samples: give some, or leave it out.")
        if self.sampling is not None and self.purpose == "train":
            train = self._indexed(splits.train, f"data.sampling={self.sampling}")
            self._sampling = fitted(self.sampling, train)
            one = with_batch(self._sampling, 1)
            Order(len(train), self.seed, Layout(1), sampling=one).indices(0)  # ValueError now, not in training
        self._splits = splits

    def _indexed(self, source: Source | Streamed, what: str) -> Source:
        if isinstance(source, Streamed):
            raise ValueError(f"{what} takes samples by their index, and {source.name} is streamed: leave it out.")
        return source

    def _check_declared(self, train: int | None, val: int) -> None:
        for name, declared, found in (("samples", self.samples, train), ("val_samples", self.val_samples, val)):
            if declared not in (None, found):
                kind = "training" if name == "samples" else "validation"
                raise ValueError(f"data.{name}={declared}, but the data holds {found} {kind} samples: correct it.")

    @property
    def splits(self) -> Splits:
        """The samples by use, after `setup`."""
        if self._splits is None:
            raise RuntimeError("the data has not been read: call setup() first.")
        return self._splits

    @property
    def train_samples(self) -> int | None:
        """The number of training samples; of a set that is streamed, the declared one, or None."""
        train = self.splits.train
        return self.samples if isinstance(train, Streamed) else len(train)

    @property
    def order_note(self) -> str:
        """The order of the training samples in words, for the table at the start of a run."""
        if isinstance(self.splits.train, Streamed):
            return "as the data gives them"
        function = getattr(self.sampling, "func", self.sampling)
        name = getattr(function, "__name__", function)
        kind = "a permutation of" if self.sampling is None else f"sampling={name} from"
        note = f"{kind} {self.train_samples} samples, new in each epoch, by data.seed={self.seed}"
        if self.fold is None:
            return note
        even = known_labels(self.splits.train) is not None
        parts = "with even shares of each class" if even else "drawn without regard to classes"
        return f"{note}; fold {self.fold.fold} of {self.fold.folds}, {parts}"

    @property
    def notes(self) -> list[str]:
        """What else the table at the start of a run says of the data."""
        return []

    def check_run(self, world: int, saved: Mapping[str, Any] | None) -> None:
        """ValueError for what a run on `world` processes that goes on from the checkpoint `saved` cannot do."""
        train = self.splits.train
        if saved is not None:
            check_same_data(saved, type(self).__qualname__, self._fitted, getattr(self, "class_names", None))
        if isinstance(train, Streamed):
            train.check_ranks(world)
            if saved is not None:
                train.check_position(_positions(saved.get(type(self).__qualname__), world)[0])

    def check_labels(self, classes: int, ignore_index: int) -> None:
        """ValueError for a sample whose label is none of the classes, in splits that keep their labels."""
        for name, source in self.splits._asdict().items():
            check_labels(source, name, classes, ignore_index)

    def follow(self, clock: Clock, loop: Any) -> None:
        """Connect the training loader to the clock of a run, before it starts; `loop` has the fields of `Loop`."""
        values = {field.name: getattr(loop, field.name) for field in fields(Loop)}
        self._clock, self._loop = clock, Loop(**values)
        if (count := self._loop.repeated) is not None:
            source = self._indexed(self.splits.train, f"trainer.overfit={count}")
            if count > (most := self._order(source).updates_per_epoch):
                raise ValueError(
                    f"trainer.overfit={count} is more than the {most} batches of an epoch: give 1 to {most}."
                )

    def train_dataloader(self) -> Stream:
        """This rank's part of every global batch, from the update that the clock shows."""
        if self._clock is None:
            raise RuntimeError("the training loader has no clock: call follow() first.")
        if isinstance(self.splits.train, Streamed):
            return self._streamed(self.splits.train, self._clock)
        source = self.splits.train.to(self._device)
        return Stream(source, self._order(source), self._clock, self._loop, self.augment)

    def _streamed(self, source: Streamed, clock: Clock) -> StreamedLoader:
        layout = self._layout(self.batch_size, self._loop.accumulate)
        order = Order(layout.global_batch, self.seed, layout, stages=self._loop.stages)  # only seeds and sizes are used
        mine, seed = source.of_rank(layout.rank, layout.world), mix(self.seed, layout.rank)
        read = partial(mine.batches, self.batch_size, seed, device=self._device)
        self._stream = StreamedLoader(read, self._begins, order, clock, self._loop, self.augment)
        return self._stream

    def teardown(self, stage: str) -> None:
        """End the processes that read samples."""
        for source in (*(self._splits or ()), self._stream):
            if isinstance(source, Workers | StreamedLoader):
                source.close()

    def positions(self, t: int) -> list[int]:
        """The positions in the order of the data that update `t` takes. ValueError for data that is streamed."""
        return self._order(self._indexed(self.splits.train, "leaving batches out")).positions(t)

    def nonfinite_samples(self, t: int) -> list[str]:
        """The samples of update `t` on this rank that hold a number that is not finite, by slice; reads them again."""
        if isinstance(self.splits.train, Streamed):
            return []
        source = self.splits.train.to(self._device)
        order, found = self._order(source), []
        for micro in range(order.micro_batches(t)):
            pick = order.pick(t, micro)
            batch = source.read(pick) if isinstance(source, Workers) else next(source.batches([pick]))
            made = augmented(batch, order.micro_seed(t, micro), self.augment).batch
            if bad := [int(pick.indices[row]) for row in nonfinite_rows(made, len(pick.indices))]:
                found.append(f"slice {order.layout.slice_of(micro)}: sample{'s' * (len(bad) > 1)} {_few(bad)}")
        return found

    def state_dict(self) -> dict[str, Any]:
        """What was computed from the training samples; for a set that is streamed, where the next update begins."""
        if self._splits is None or not isinstance(self._splits.train, Streamed):
            return {} if self._fitted is None else {"fitted": self._fitted}
        stream, clock, world = self._stream, self._clock, self._layout(1).world
        position = asdict(self._begins if stream is None or clock is None else stream.position(clock()))
        positions: list[Any] = [position] * world
        if world > 1:
            torch.distributed.all_gather_object(positions, position)
        return {"positions": positions}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Before the data is read: take what was computed from other training samples."""
        if "fitted" in state_dict:
            self._fitted = state_dict["fitted"]
            return
        layout = self._layout(1)
        self._begins = _positions(state_dict, layout.world)[layout.rank]

    def val_dataloader(self) -> Shard | list:
        """This rank's part of the validation split; an empty list where there is none."""
        return self._evaluation(self.splits.val)

    def test_dataloader(self) -> Shard | list:
        """This rank's part of the test split; an empty list where there is none."""
        return self._evaluation(self.splits.test)

    def evaluation_dataloader(self, split: str) -> Shard | list:
        """This rank's part of a split, train, val or test, in its order and without augmentation.

        ValueError for training data that is streamed, whose passes differ.
        """
        source = getattr(self.splits, split)
        if isinstance(source, Streamed):
            raise ValueError(f"data.{split} is streamed, and has no fixed samples: give a loader of your own.")
        return self._evaluation(source)

    def validation_samples(self, count: int) -> Any:
        """The first `count` validation samples as one batch, on the device of the run."""
        source = self.splits.val
        if source is None:
            raise RuntimeError("there is no validation data.")
        source = source.to(self._device)
        return next(source.batches([Pick(0, torch.arange(count, device=source.home))]))

    def random_batches(self, seed: int, t: int, size: int, count: int) -> Iterator[MicroBatch]:
        """`count` micro-batches of `size` training samples, drawn one by one with replacement by (seed, t).

        With a sampling, they are drawn from an epoch of it.
        """
        source = self._indexed(self.splits.train, "this command").to(self._device)
        draw = torch.Generator().manual_seed(mix(seed, t))
        indices = (torch.randint(len(source), (size,), generator=draw) for _ in range(count))
        if self._sampling is not None:
            order = self._order(source).indices(mix(seed, t))
            indices = (order[places] for places in indices)
        picks = (Pick(0, drawn.to(source.home), mix(seed, t, i)) for i, drawn in enumerate(indices))
        for i, batch in enumerate(source.batches(picks)):
            yield augmented(batch, mix(seed, t, i), self.augment)

    def claims(self) -> dict[str, str]:
        """What this rank trains on, as short texts by name, which must be the same on all ranks."""
        source = self.splits.train
        if isinstance(source, Streamed):
            return {"training data": source.name}
        order = self._order(source)
        picked = order.indices(0)[: order.layout.global_batch]
        first = Pick(0, picked[:8].to(source.home), self.seed)
        few = source.read(first) if isinstance(source, Workers) else next(source.batches([first]))
        return {
            "training samples": str(len(source)),
            "first batch": fingerprint(picked),
            "first samples": fingerprint(few),
        }

    def _evaluation(self, source: Source | None) -> Shard | list:
        return [] if source is None else Shard(source.to(self._device), self._layout(self.eval_batch_size))

    def _order(self, source: Source) -> Order:
        layout = self._layout(self.batch_size, self._loop.accumulate)
        sampling = None if self._sampling is None else with_batch(self._sampling, layout.global_batch)
        loop = self._loop
        order = Order(len(source), self.seed, layout, source.home, loop.stages, sampling)
        order.left_out, order.repeated = loop.left_out, loop.repeated
        return order

    def _layout(self, batch_size: int, accumulate: int = 1) -> Layout:
        if self.trainer is None:
            return Layout(batch_size, accumulate)
        return Layout(batch_size, accumulate, self.trainer.world_size, self.trainer.global_rank)

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device


def _few(indices: list[int]) -> str:
    more = f" and {len(indices) - 8} more" if len(indices) > 8 else ""
    return f"{', '.join(map(str, indices[:8]))}{more}"


def _positions(state: Mapping[str, Any] | None, world: int) -> list[Position]:
    """Where the data of each rank goes on, from the state in a checkpoint."""
    if state is None:
        raise ValueError("data: the checkpoint has no position in a set that is streamed: start anew.")
    positions = [Position(**position) for position in state["positions"]]
    if len(positions) != world:
        raise ValueError(f"data: the checkpoint has positions for {len(positions)} processes, and not for {world}.")
    return positions


def _with_base_parameters(cls: type) -> inspect.Signature:
    """The signature of a class, with the parameters of its base class in place of `**base`."""
    try:
        own = inspect.signature(cls.__init__, eval_str=True)  # type: ignore[misc]
    except (NameError, AttributeError, TypeError, SyntaxError):
        own = inspect.signature(cls.__init__)  # type: ignore[misc]
    parameters = list(own.parameters.values())[1:]
    if cls.__init__ is not cls.__base__.__init__ and any(one.kind is one.VAR_KEYWORD for one in parameters):  # type: ignore[misc]
        parameters = [one for one in parameters if one.kind is not one.VAR_KEYWORD]
        names = {one.name for one in parameters}
        more = inspect.signature(cls.__base__, eval_str=True).parameters.values()  # type: ignore[arg-type]
        parameters += [one for one in more if one.name not in names]
    return own.replace(parameters=parameters, return_annotation=own.empty)
