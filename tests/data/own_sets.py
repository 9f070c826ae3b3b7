"""Data of a user's own, as tests name it in configs: data sets, loaders, a LightningDataModule, a net, a step."""

from collections.abc import Iterator
from typing import Any

import datasets
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler, default_collate, random_split

from trainer.engine.step import StepOutput

CLASSES, FEATURES, KINDS, LONGEST = 3, 4, 5, 6


class Rows(Dataset):
    """(numbers, categories, target), with noise from torch's generator at each access."""

    def __init__(self, count: int = 64, noise: float = 0.0, begin: int = 0) -> None:
        self.count, self.noise, self.begin = count, noise, begin

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        draw = torch.Generator().manual_seed(self.begin + index)
        numbers, kinds = torch.randn(FEATURES, generator=draw), torch.randint(KINDS, (2,), generator=draw)
        target = int(numbers[0] > 0) + int(kinds[0] > 2)
        return numbers + self.noise * torch.randn(FEATURES), kinds, target


class Records(Rows):
    """The same by name, with an id, and tokens of different lengths."""

    def __getitem__(self, index: int) -> dict[str, Any]:  # type: ignore[override]
        numbers, kinds, target = super().__getitem__(index)
        return {"id": f"row {index}", "tokens": list(range(1 + index % LONGEST)), "x": (numbers, kinds), "y": target}


def padded(samples: list[dict[str, Any]], pad: int = -1) -> dict[str, Any]:
    """A batch by name: ids as they are, tokens padded, numbers and categories in a pair."""
    longest = max(len(sample["tokens"]) for sample in samples)
    rows = [sample["tokens"] + [pad] * (longest - len(sample["tokens"])) for sample in samples]
    numbers, kinds = (torch.stack(part) for part in zip(*(sample["x"] for sample in samples)))
    targets = torch.tensor([sample["y"] for sample in samples])
    return {
        "id": [s["id"] for s in samples],
        "tokens": torch.tensor(rows),
        "x": {"n": numbers, "k": kinds},
        "y": targets,
    }


class Mixed(nn.Module):
    """A net on numbers and categories; `classes` is from the data."""

    def __init__(self, classes: int, hidden: list[int], **others: Any) -> None:
        super().__init__()
        (width,) = hidden
        self.embed, self.first = nn.Embedding(KINDS, 2), nn.Linear(FEATURES + 4, width)
        self.last = nn.Linear(width, classes)

    def forward(self, numbers: Tensor, kinds: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(torch.cat([numbers, self.embed(kinds).flatten(1)], dim=1))))


def row_step(net: nn.Module, batch: Any, *, t: int) -> StepOutput:
    """The loss of (numbers, kinds, target)."""
    numbers, kinds, targets = batch
    outputs = net(numbers, kinds)
    return StepOutput(functional.cross_entropy(outputs, targets), outputs=outputs, targets=targets)


def record_step(net: nn.Module, batch: Any, *, t: int) -> StepOutput:
    """The loss of a batch by name, weighted with its tokens."""
    assert all(isinstance(name, str) for name in batch["id"])
    losses = functional.cross_entropy(net(batch["x"]["n"], batch["x"]["k"]), batch["y"], reduction="none")
    counts = (batch["tokens"] >= 0).sum(1)
    return StepOutput((losses * counts).sum() / counts.sum(), counts.sum())


class Flow(IterableDataset):
    """Rows in order, with a state; random where `noise` is."""

    def __init__(self, count: int = 50, noise: float = 0.0) -> None:
        self.rows, self.at = Rows(count, noise), 0

    def __iter__(self) -> Iterator[Any]:
        for index in range(self.at, len(self.rows)):
            self.at = index + 1
            yield self.rows[index]

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class Shuffled(Flow):
    """Rows in an order by its epoch, which its state holds."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(self.epoch)).tolist()
        for place in range(self.at, len(self.rows)):
            self.at = place + 1
            yield torch.tensor(order[place])

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at, self.epoch = state["at"], state["epoch"]


class Counting(Flow):
    """Rows in an order by the number of its passes, which its state holds, and nothing tells it."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(self.passes)).tolist()
        for place in range(self.at, len(self.rows)):
            self.at = place + 1
            yield torch.tensor(order[place])
        self.at, self.passes = 0, self.passes + 1

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at, "passes": self.passes}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at, self.passes = state["at"], state["passes"]


class CountingInSilence(IterableDataset):
    """The same without a state."""

    def __init__(self) -> None:
        self.inside = Counting()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inside)


class NoState(IterableDataset):
    """The same without a state."""

    def __init__(self, count: int = 50, noise: float = 0.0) -> None:
        self.rows = Rows(count, noise)

    def __iter__(self) -> Iterator[Any]:
        return (self.rows[index] for index in range(len(self.rows)))


def hugging_rows(count: int = 50) -> datasets.IterableDataset:
    """Rows as an iterable set of `datasets`, with noise from torch's generator."""
    numbers = [{"index": index} for index in range(count)]
    return datasets.Dataset.from_list(numbers).to_iterable_dataset(num_shards=2).map(_row, remove_columns=["index"])


def _row(number: dict[str, int]) -> dict[str, Any]:
    numbers, kinds, target = Rows(noise=0.3)[number["index"]]
    return {"numbers": numbers.tolist(), "kinds": kinds.tolist(), "target": target}


def stacked(samples: list[dict[str, Any]]) -> tuple[Tensor, ...]:
    """A batch of `hugging_rows` as (numbers, kinds, targets)."""
    return tuple(torch.tensor([sample[name] for sample in samples]) for name in ("numbers", "kinds", "target"))


def train_loader(batch_size: int, noise: float = 0.0, num_workers: int = 0) -> DataLoader:
    return DataLoader(Rows(noise=noise), batch_size=batch_size, shuffle=True, num_workers=num_workers)


def val_loader() -> DataLoader:
    return DataLoader(Rows(20, begin=1000), batch_size=7)


def sampled_loader(batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size=batch_size, sampler=WeightedRandomSampler([1.0] * 64, 64))


def flow_loader(batch_size: int) -> DataLoader:
    return DataLoader(Flow(), batch_size=batch_size)


class FastRows:
    """A loader of another class, as libraries write them, that may change its batches or leave some out."""

    def __init__(self, batch_size: int, shuffle: bool = True, scale: float = 1.0, short: bool = False) -> None:
        self.dataset, self.batch_size, self.shuffle = Rows(), batch_size, shuffle
        self.scale, self.short = scale, short

    def __len__(self) -> int:
        return len(self.dataset) // self.batch_size - self.short

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(len(self.dataset)) if self.shuffle else torch.arange(len(self.dataset))
        for indices in order.split(self.batch_size)[: len(self)]:
            numbers, *others = default_collate([self.dataset[int(i)] for i in indices])
            yield self.scale * numbers, *others


class OneSplit(pl.LightningDataModule):
    """It says of the splits that it does not have that they are not there, as some libraries do."""

    def train_dataloader(self) -> FastRows:
        return FastRows(8)

    def val_dataloader(self) -> DataLoader:
        return val_loader()

    def test_dataloader(self) -> DataLoader:
        raise NotImplementedError("give three lengths")


class LitRows(pl.LightningDataModule):
    """As a project has it."""

    def __init__(self, batch_size: int = 8, noise: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.calls: list[str] = []

    def prepare_data(self) -> None:
        self.calls.append("prepare_data")

    def setup(self, stage: str) -> None:
        self.calls.append(stage)
        self.sets = {"fit": Rows(noise=self.hparams["noise"]), "test": Rows(10, begin=2000)}

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.sets["fit"], batch_size=self.hparams["batch_size"], shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return val_loader()

    def test_dataloader(self) -> list[DataLoader]:
        return [DataLoader(self.sets["test"], batch_size=4)]


class SplitRows(LitRows):
    """Split at random, by the global generator."""

    def setup(self, stage: str) -> None:
        self.sets = dict(zip(("fit", "test"), random_split(Rows(), [48, 16])))


class AskingRows(LitRows):
    """It wants to know the number of processes."""

    def setup(self, stage: str) -> None:
        self.each = self.hparams["batch_size"] // self.trainer.world_size  # type: ignore[union-attr]


class MovingRows(LitRows):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch
