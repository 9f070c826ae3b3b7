"""The time of a batch from memory, workers, a mapped file of tokens and Parquet, beside bare reading."""

import io
import os
import random
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.compared import Line, line
from benchmarks.compared import show_lines as lines_shown
from data.order import Layout, Order, permutation
from data.parquet_rows import ParquetRows
from data.sampling import Sampling
from data.source import Memory, Source, Workers
from data.stream import Loop, Stream
from data.streamed import Position, Streamed
from data.text import Windows
from data.token_file import TokenFile

CHUNK = 10
"""Updates per execution, as in the default config."""
SIDE, PICTURES, TOKENS, CONTEXT = 96, 512, 2**26, 1024
ROWS, WIDTH, ROW_GROUP, PASSES = 100_000, 64, 4096, 5
Read = Callable[[], Iterable[Any]]


class Jpegs(Dataset):
    """Photographs of noise, decoded from JPEG and mirrored at random, (3, SIDE, SIDE) float32."""

    def __init__(self) -> None:
        from PIL import Image

        self.files = []
        for seed in range(PICTURES):
            small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            file = io.BytesIO()
            Image.fromarray(small).resize((SIDE, SIDE)).save(file, "JPEG")
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return PICTURES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        picture = torch.from_numpy(np.array(Image.open(io.BytesIO(self.files[index])))).permute(2, 0, 1)
        if torch.rand(()) < 0.5:
            picture = picture.flip(2)
        return picture.float() / 255, index % 10


def measured(options: Namespace) -> dict[str, Any]:
    """Seconds of a batch in each round, Cadence and its peer in random order."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [*memory(options), workers(options), *tokens(options, Path(folder)), *parquet(options, Path(folder))]
    return {"lines": lines}


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    lines_shown(
        report["lines"],
        "A batch, ready for the step. The processor's time from memory, the page cache and Parquet, else the clock's.",
    )


def memory(options: Namespace) -> list[Line]:
    """Batches of the loader of a run, beside plain indexing by the same permutation."""
    found, count = [], options.updates or 2000
    for shape, size in (((64,), 32), ((64,), 512), ((3, 32, 32), 128)):
        inputs, targets = torch.randn(8192, *shape), torch.randint(10, (8192,))
        tree = {"inputs": inputs, "labels": targets}
        few = count if size == 32 else max(1, count // 10)
        what = f"{'×'.join(map(str, shape))} numbers, batch {size}"
        for kind, stored in (("memory", (inputs, targets)), ("memory, a tree", tree)):
            ours, theirs = partial(loaded, Memory(stored), size), partial(indexed, stored, size)
            pair = race(ours, theirs, few, options, clock=process_time)
            found.append(line(f"{kind}, {what}", *joined(pair, "plain indexing"), "<= 1.15"))
    return found


def workers(options: Namespace) -> Line:
    """Two workers that decode pictures, beside a DataLoader with two; one pass after the workers have started."""
    dataset, size, few = Jpegs(), 32, min(options.updates or 48, 48)
    source = Workers(dataset, 2)
    loader = DataLoader(dataset, size, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True)
    try:
        pair = race(partial(loaded, source, size), lambda: endless(loader), few, options)
    finally:
        source.close()
    return line(f"2 workers, JPEG {SIDE}×{SIDE}, batch {size}", *joined(pair, "DataLoader, 2 workers"), ">= 0.95")


def tokens(options: Namespace, folder: Path) -> list[Line]:
    """A mapped file of tokens, beside nanoGPT's get_batch; also with the file out of the page cache."""
    path, few, size = folder / "train.bin", min(options.updates or 200, 200), 12
    count = 2**20 if options.updates else TOKENS
    np.random.default_rng(0).integers(0, 50_000, count, dtype=np.uint16).tofile(path)
    ours, theirs = partial(token_windows, path, size), partial(nanogpt, path, size, count)
    warm = race(ours, theirs, few, options, clock=process_time)
    cold = race(ours, theirs, few, options, partial(forget, path))
    what = f"token file, {count * 2 / 1e6:.0f} MB, {size} × {CONTEXT}"
    peer = "nanoGPT's get_batch"
    return [
        line(f"{what}, cached", *joined(warm, peer), ">= 0.9"),
        line(f"{what}, from disk", *joined(cold, peer), ">= 0.9"),
    ]


def token_windows(path: Path, size: int) -> Iterator[Any]:
    """The batches of a run on a file of tokens."""
    module = TokenFile(path=str(path), context=CONTEXT, vocab_size=50_000, batch_size=size)
    module.setup()
    source = module.splits.train
    assert isinstance(source, Windows)
    return loaded(source, size)


def nanogpt(path: Path, size: int, count: int) -> Iterator[Any]:
    """Batches at random places, as nanoGPT's train.py makes them."""
    while True:
        stored = np.memmap(path, dtype=np.uint16, mode="r")
        places = torch.randint(count - CONTEXT, (size,)).tolist()
        parts = [[torch.from_numpy(stored[i + j : i + j + CONTEXT].astype(np.int64)) for i in places] for j in (0, 1)]
        yield torch.stack(parts[0]), torch.stack(parts[1])


def forget(path: Path) -> None:
    """Write a file to disk and drop it from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def parquet(options: Namespace, folder: Path) -> list[Line]:
    """A Parquet file streamed by `datasets`, beside bare reading of its row groups and beside `datasets` alone."""
    try:
        import datasets
        import pyarrow
        from pyarrow import parquet as files
    except ImportError:
        return []
    path, size = folder / "rows.parquet", 256
    numbers = np.random.default_rng(0).standard_normal((ROWS, WIDTH), dtype=np.float32)
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(numbers.ravel()), WIDTH)
    table = pyarrow.table({"inputs": column, "labels": pyarrow.array(np.arange(ROWS) % 10)})
    files.write_table(table, path, row_group_size=ROW_GROUP)

    def given() -> Any:
        return datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True).with_format(
            "torch"
        )

    def streamed() -> Iterator[Any]:
        for batch, _ in Streamed(given()).batches(size, 0, Position(), torch.device("cpu")):
            yield batch

    def ours() -> Iterator[Any]:
        module = ParquetRows(path=str(path), label="labels", mixed=1, batch_size=size)
        module.setup()
        return loaded(module.splits.train, size, module.sampling)  # type: ignore[arg-type]

    what, few = f"Parquet, {WIDTH} numbers, batch {size}", options.updates or PASSES * (ROWS // size)  # whole passes
    pairs = race(ours, partial(row_groups, path, size), few, options, clock=process_time)
    alone = race(streamed, lambda: endless(DataLoader(given(), size, drop_last=True)), min(few, 20), options)
    return [
        line(f"{what}, data=parquet", *joined(pairs, "row groups by pyarrow"), ">= 0.9"),
        line(f"{what}, data=dataset", *joined(alone, "datasets in a DataLoader")),
    ]


def row_groups(path: Path, size: int) -> Iterator[Any]:
    """The batches of each row group in turn, pass after pass, by pyarrow alone."""
    from pyarrow import parquet as files

    file = files.ParquetFile(path)
    while True:
        for number in range(file.num_row_groups):
            group = file.read_row_group(number)
            inputs = group["inputs"].combine_chunks().flatten().to_numpy().reshape(-1, WIDTH)
            labels = group["labels"].to_numpy()
            for first in range(0, len(labels) - size + 1, size):
                yield tuple(torch.from_numpy(part[first : first + size].copy()) for part in (inputs, labels))


def loaded(source: Source, size: int, sampling: Sampling | None = None) -> Iterator[Any]:
    """The batches of a run, as its training loader gives them."""
    total, order = 1 << 30, Order(len(source), 0, Layout(size), sampling=sampling)
    stream = Stream(source, order, lambda: 0, Loop(total, total, (), CHUNK))
    for chunk in stream:
        for update in chunk:
            yield update[0].batch


def indexed(stored: Any, size: int) -> Iterator[Any]:
    """The batches of a bare loop: a permutation for each epoch, and tensors indexed by its parts."""
    named, epoch = isinstance(stored, dict), 0
    samples = len(stored["inputs"] if named else stored[0])
    while True:
        order = permutation(samples, 0, epoch)
        for first in range(0, samples - size + 1, size):
            picked = order[first : first + size]
            if named:
                yield {name: tensor[picked] for name, tensor in stored.items()}
            else:
                yield stored[0][picked], stored[1][picked]
        epoch += 1


def endless(loader: DataLoader) -> Iterator[Any]:
    """Pass after pass of a loader."""
    while True:
        yield from loader


def race(
    ours: Read,
    theirs: Read,
    count: int,
    options: Namespace,
    before: Callable[[], None] | None = None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, list[float]]:
    """Seconds of a batch of both in each round, after one to warm up, in random order."""
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(options.rounds + 1):
        for name, read in random.sample([("ours", ours), ("theirs", theirs)], 2):
            if before:
                before()
            batches = iter(read())
            next(batches)
            begun = clock()
            for _ in islice(batches, count):
                pass
            spent = clock() - begun
            if number:
                found[name].append(spent / count)
    return found


def joined(pair: dict[str, list[float]], peer: str) -> tuple[list[float], str, list[float]]:
    """The middle arguments of a line."""
    return pair["ours"], peer, pair["theirs"]
