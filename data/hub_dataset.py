"""Any data set of the `datasets` library: from the hub by name, or from a folder or file."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.bounds import integer, share
from data.checks import class_labels, rgb
from data.module import DataModule, Splits
from data.order import permutation
from data.padding import Pad, load_tokenizer, pad_id
from data.source import Workers
from data.transforms import as_tensor

if TYPE_CHECKING:
    import datasets

_FILES = {".csv": "csv", ".parquet": "parquet", ".json": "json", ".jsonl": "json", ".txt": "text"}


class HubDataset(DataModule):
    """Samples by name: the chosen columns of each row, and the tokens of its texts; or (inputs, label).

    `path` is a name on the Hugging Face hub (with `name`, one of its configurations), a folder, one that `save_to_disk`
    has written, or a file. `val_split` and `test_split` name splits; without `val_split`, `val_fraction` of
    `train_split` is held out, drawn by `split_seed`. `columns` are used (None: all), under the names of `rename`.

    `text` is a column of texts, or two for pairs, and `tokenizer` makes `input_ids` and `attention_mask` of it, of at
    most `max_length` tokens; sequences are padded to the longest of a batch, labels with -100. `label` is a column of
    classes, checked before training: whole numbers from 0 on, or `ignore_index`. With `inputs`, a column, samples are
    pairs for the default step. Images are bytes (3, H, W) in a sample, and floats from 0 to 1 in a batch.

    FileNotFoundError for data that cannot be read, ValueError for splits, columns and labels that do not fit.
    """

    def __init__(
        self,
        *,
        path: str,
        name: str | None = None,
        train_split: str = "train",
        val_split: str | None = None,
        test_split: str | None = None,
        val_fraction: float = 0.1,
        columns: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        label: str | None = None,
        ignore_index: int | None = None,
        inputs: str | None = None,
        text: str | Sequence[str] | None = None,
        tokenizer: str | None = None,
        max_length: int = 128,
        num_workers: int = 0,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        self.path, self.name = path, name
        self.used = {"train": train_split, "val": val_split, "test": test_split}
        self.val_fraction = share("data.val_fraction", val_fraction)
        self.columns, self.rename = columns, dict(rename or {})
        self.label, self.ignore_index, self.inputs = label, ignore_index, inputs
        self.text = [text] if isinstance(text, str) else list(text or [])
        self.tokenizer, self.max_length = tokenizer, integer("data.max_length", max_length)
        self.num_workers = integer("data.num_workers", num_workers, low=0)
        if bool(self.text) != (tokenizer is not None):
            raise ValueError("data.text and data.tokenizer belong together: give both, or none.")
        if inputs is not None and label is None:
            raise ValueError(f"data.inputs={inputs} makes pairs of inputs and label: set data.label.")
        self._shape: dict[str, int] = {}

    @property
    def shape(self) -> dict[str, int]:
        self.setup()
        return self._shape

    def read(self) -> Splits:
        found = load(self.path, self.name)
        splits = {use: split for use, split in self.used.items() if split is not None}
        for use, split in splits.items():
            if split not in found:
                raise ValueError(
                    f"data.{use}_split={split} is not in data.path={self.path}: it has {', '.join(found)}."
                )
        rows = {use: self._checked(found[split], split) for use, split in splits.items()}
        if "val" not in rows:
            rows |= self._hold_out(rows["train"])
        pad = 0
        if self.tokenizer is not None:
            tokenizer = load_tokenizer(self.tokenizer)
            pad, self._shape["vocab_size"] = pad_id(tokenizer), len(tokenizer)
            rows = {use: self._tokenized(one, tokenizer) for use, one in rows.items()}
        return Splits(**{use: self._source(one, pad) for use, one in rows.items() if len(one)})

    def _checked(self, rows: "datasets.Dataset", split: str) -> "datasets.Dataset":
        """The columns that are used, with labels that are classes and texts that are there."""
        named = [*(self.columns or ()), *self.text, *self.rename, *filter(None, (self.label, self.inputs))]
        for name in named:
            if name not in rows.column_names:
                raise ValueError(
                    f"data.path={self.path} has no column {name} in {split}: it has {', '.join(rows.column_names)}."
                )
        where = f"data.path={self.path}, column {{}} of {split}"
        for name in self.text:
            column = rows.with_format("arrow")[:][name]
            if column.null_count:
                row = column.is_null().to_pylist().index(True)
                raise ValueError(f"{where.format(name)}: row {row} has no text: fill it, or drop the row.")
        if self.label is not None:
            self._check_labels(rows, where.format(self.label))
        if self.columns is not None:
            rows = rows.select_columns(list(dict.fromkeys(named)))
        return rows

    def _check_labels(self, rows: "datasets.Dataset", where: str) -> None:
        column = rows.with_format("arrow")[:][self.label]
        classes = getattr(rows.features[self.label], "num_classes", None)
        if classes is None:
            values = set(column.to_pylist()) - {None, self.ignore_index}
            classes = max(len(values), self._shape.get("classes", 0), 1)
        class_labels(column, classes, where, self.ignore_index)
        self._shape["classes"] = classes

    def _hold_out(self, rows: "datasets.Dataset") -> dict[str, "datasets.Dataset"]:
        held_out = int(len(rows) * self.val_fraction)
        order = permutation(len(rows), self.split_seed, epoch=0)
        parts = order.split([len(rows) - held_out, held_out])
        train, val = (rows.select(sorted(part.tolist())) for part in parts)
        return {"train": train, "val": val}

    def _tokenized(self, rows: "datasets.Dataset", tokenizer: Any) -> "datasets.Dataset":
        options = {"truncation": True, "max_length": self.max_length, "verbose": False}
        return rows.map(
            lambda batch: dict(tokenizer(*(batch[name] for name in self.text), **options)),
            batched=True,
            remove_columns=self.text,
            desc="Tokenizing",
        )

    def _source(self, rows: "datasets.Dataset", pad: int) -> Workers:
        dataset = Rows(rows.rename_columns(self.rename) if self.rename else rows, self._renamed(self.label))
        collate: Any = Pad(pad)
        if self.inputs is not None:
            collate = Pairs(collate, str(self._renamed(self.inputs)), str(self._renamed(self.label)))
        return Workers(dataset, self.num_workers, collate, prepare=in_unit_range)

    def _renamed(self, name: str | None) -> str | None:
        return None if name is None else self.rename.get(name, name)


class Rows(Dataset):
    """Rows as {name: tensor or text}; images as bytes (3, H, W)."""

    def __init__(self, rows: "datasets.Dataset", label: str | None) -> None:
        self.rows, self.label = rows, label

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> list[int] | None:
        """The labels, where there are some."""
        return None if self.label is None else self.rows.with_format("arrow")[:][self.label].to_pylist()

    @property
    def lengths(self) -> list[int] | None:
        """The numbers of tokens, where there are some."""
        if "input_ids" not in self.rows.column_names:
            return None
        return [len(ids) for ids in self.rows.with_format("arrow")[:]["input_ids"].to_pylist()]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: self._value(name, value, index) for name, value in self.rows[index].items()}

    def _value(self, name: str, value: Any, index: int) -> Any:
        if isinstance(value, str):
            return value
        if hasattr(value, "convert"):  # an image of Pillow
            from PIL import Image

            return as_tensor(Image.fromarray(rgb(value, f"data.path: the image in row {index}, column {name},")))
        try:
            return torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"data.path: column {name} has {type(value).__name__} values, which no tensor holds: name the columns "
                "to use in data.columns."
            ) from error


class Pairs:
    """(inputs, label) of a batch by name."""

    def __init__(self, collate: Pad, inputs: str, label: str) -> None:
        self.collate, self.inputs, self.label = collate, inputs, label

    def __call__(self, samples: list[dict[str, Any]]) -> tuple[Any, Any]:
        batch = self.collate([{name: sample[name] for name in (self.inputs, self.label)} for sample in samples])
        return batch[self.inputs], batch[self.label]


def in_unit_range(batch: Any) -> Any:
    """Bytes, as images have them, as floats from 0 to 1; all else as it is."""
    if isinstance(batch, Tensor):
        return batch.float() / 255 if batch.dtype == torch.uint8 else batch
    if isinstance(batch, tuple):
        return tuple(map(in_unit_range, batch))
    return {name: in_unit_range(value) for name, value in batch.items()} if isinstance(batch, dict) else batch


def load(path: str, name: str | None) -> "dict[str, datasets.Dataset]":
    """The splits of a data set by name. FileNotFoundError where it cannot be read."""
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    place = Path(path).expanduser()
    try:
        if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
            found = datasets.load_from_disk(str(place))
        elif place.is_file() and place.suffix.lower() in _FILES:
            found = datasets.load_dataset(_FILES[place.suffix.lower()], data_files=str(place))
        else:
            if not place.exists():
                print(f"data.path={path}: there is no such file or folder here; asking the hub", file=sys.stderr)
            found = datasets.load_dataset(str(place) if place.is_dir() else path, name)
    except Exception as error:  # it raises many kinds
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"data.path={path} cannot be read as a data set: {reason}: give a name on the hub, a folder or a file."
        ) from error
    return dict(found) if isinstance(found, dict) else {"train": found}
