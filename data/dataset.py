"""Data sets of one's own, by config: map-style, iterable, or of the package `datasets`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from data.module import DataModule, Splits
from data.reader import Collate
from data.source import Prepare, Source, Workers
from data.streamed import Streamed, is_streamed

HELD_OUT = ("val", "test")


class Given(NamedTuple):
    """A data set, and how it is read."""

    dataset: Any
    num_workers: int = 0
    collate_fn: Collate | None = None
    options: Mapping[str, Any] = {}


class Datasets(DataModule):
    """Training, validation and test samples from data sets, or from functions that make them.

    A set with `__getitem__` and `__len__` is read in the order of the run, by `num_workers` processes. An iterable one
    gives its samples in an order of its own, see `data.streamed.Streamed` for `sharded` and `reread`; for validation
    and test it is read once into memory. `collate_fn` makes a batch of a list of samples. `shape` has numbers that the
    model needs, by name.
    """

    def __init__(
        self,
        *,
        train: Any = None,
        val: Any = None,
        test: Any = None,
        collate_fn: Collate | None = None,
        num_workers: int = 0,
        sharded: bool = False,
        reread: bool = False,
        shape: Mapping[str, Any] | None = None,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.given = {"train": train, "val": val, "test": test}
        self.collate_fn, self.num_workers = collate_fn, num_workers
        self.sharded, self.reread, self._shape = sharded, reread, dict(shape or {})
        self._in_parts: list[str] = []

    @property
    def shape(self) -> dict[str, Any]:
        return self._shape

    def read(self) -> Splits:
        given = self.parts()
        if given["train"] is None:
            raise ValueError("data.train is not set: give the _target_ of its data.")
        return Splits(self._training(given["train"]), *(self._held_out(name, given[name]) for name in HELD_OUT))

    def parts(self) -> Mapping[str, Given | None]:
        """The data sets by use; None where there is none."""
        found = {name: made(f"data.{name}", given) for name, given in self.given.items()}
        return {
            name: None if dataset is None else Given(dataset, self.num_workers, self.collate_fn)
            for name, dataset in found.items()
        }

    def check_run(self, world: int, saved: Mapping[str, Any] | None) -> None:
        """Also refuse a held-out set of which each process would read a part."""
        super().check_run(world, saved)
        if world > 1 and self._in_parts:
            raise ValueError(f"data.{self._in_parts[0]} is streamed in parts: let each process read all of it.")

    def prepare(self) -> Prepare | None:
        """What changes each batch on its device."""
        return None

    def _training(self, given: Given) -> Source | Streamed:
        if is_streamed(given.dataset):
            return Streamed(given.dataset, given.num_workers, given.collate_fn, self.reread, self.sharded)
        return self._workers(given)

    def _held_out(self, name: str, given: Given | None) -> Source | None:
        if given is None:
            return None
        if not is_streamed(given.dataset):
            return self._workers(given)
        streamed = Streamed(given.dataset, sharded=self.sharded)
        self._in_parts += [name] if streamed.sharded else []
        return self._workers(Given(streamed.samples(seed=0), 0, given.collate_fn))

    def _workers(self, given: Given) -> Workers:
        return Workers(given.dataset, given.num_workers, given.collate_fn, self.prepare(), given.options)


def made(key: str, given: Any) -> Any:
    """A data set or loader: `given`, or what it returns if it is a function."""
    if not callable(given) or hasattr(given, "__iter__") or hasattr(given, "__getitem__"):
        return given
    found = given()
    if found is None:
        raise ValueError(f"{key}: the function returns nothing: let it return the data.")
    return found
