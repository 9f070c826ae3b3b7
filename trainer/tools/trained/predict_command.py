"""Write the outputs of a trained run for its test data, another split, or other data.

NAME.csv has a row for each sample, for outputs with at most two dimensions. NAME.npz and NAME.pt have arrays and
tensors of any shape. Where task.loss is cross entropy, the class and its probability are written, too, and in a CSV the
name of the class where the data has names.
Examples:

    cadence predict outputs/NAME predictions.csv
    cadence predict outputs/NAME outputs.npz --split val
    cadence predict outputs/NAME outputs.pt data=mine --config-dir conf
    cadence predict outputs/NAME predictions.csv data.test_path=new.csv    a table of new rows, with targets or without
"""

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.lr import ConfigError
from trainer.tools.trained.options import add_data_options, data_of, loaded, parser_for_run
from trainer.tools.writable import check_new_file, plain_cell, write_new_file

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.tools.trained.loading import Run

FORMATS = (".csv", ".npz", ".pt")


def main(words: list[str] | None = None) -> None:
    """Predict, and write the file."""
    options = parsed(words)
    check_new_file(options.out, FORMATS, options.force)
    run = loaded(options)
    columns = columns_of(run, run.predict(data_of(run, options, "predict")))
    names = run.class_names if columns["output"].shape[-1:] == (len(run.class_names),) else ()
    write = partial(write_csv, names=names) if options.out.suffix == ".csv" else _WRITERS[options.out.suffix]
    write_new_file(options.out, lambda path: write(columns, path))
    rows = len(next(iter(columns.values())))
    print(f"{options.out}: {rows:,} samples of the {options.split} split: {', '.join(columns)}")


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = parser_for_run(__doc__)
    parser.add_argument("out", type=Path, metavar="FILE", help="NAME.csv, NAME.npz or NAME.pt")
    add_data_options(parser)
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    return parser.parse_intermixed_args(words)


def columns_of(run: "Run", outputs: Any) -> dict[str, "Tensor"]:
    """The outputs as tensors by name; for logits of classes also `class` and `probability`."""
    import torch  # late: --help needs none
    from torch.utils._pytree import keystr, tree_flatten_with_path

    leaves = {keystr(path).strip("[]'\"") or "output": leaf for path, leaf in tree_flatten_with_path(outputs)[0]}
    columns = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, torch.Tensor)}
    (logits, *others) = columns.values()
    if (
        not others
        and logits.ndim == 2
        and isinstance(getattr(run.module.step, "loss", None), torch.nn.CrossEntropyLoss)
    ):
        probability, best = logits.softmax(1).max(1)
        columns = {"class": best, "probability": probability, **columns}
    return columns


def write_csv(columns: Mapping[str, "Tensor"], path: Path, names: Sequence[str] = ()) -> None:
    """A row for each sample; a tensor of two dimensions has a column for each of its numbers.

    `names` are those of the classes.
    """
    named: dict[str, list[Any]] = {}
    for name, values in columns.items():
        if values.ndim > 2:
            raise ConfigError(
                f"{name} has the shape {list(values.shape)}, and a CSV has rows and columns: write .npz or .pt."
            )
        of_one = values.ndim == 1 or values.shape[1] == 1
        parts = {name: values.flatten()} if of_one else {f"{name}_{i}": one for i, one in enumerate(values.unbind(1))}
        named |= {key: part.tolist() for key, part in parts.items()}
        if name == "class" and names:
            named["class_name"] = [plain_cell(names[i]) for i in named[name]]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sample", *map(plain_cell, named)])
        writer.writerows([i, *row] for i, row in enumerate(zip(*named.values(), strict=True)))


def write_npz(columns: Mapping[str, "Tensor"], path: Path) -> None:
    """An array for each tensor."""
    import numpy as np

    arrays: Any = {name: values.numpy() for name, values in columns.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def write_tensors(columns: Mapping[str, "Tensor"], path: Path) -> None:
    """The tensors by name."""
    import torch

    torch.save(dict(columns), path)


_WRITERS: dict[str, Callable[[Mapping[str, "Tensor"], Path], None]] = {
    ".csv": write_csv,
    ".npz": write_npz,
    ".pt": write_tensors,
}
