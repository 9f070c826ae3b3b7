"""A file of token ids gives the windows of the same tokens in memory, and is never read whole."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.order import Pick
from data.reader import SampleError
from data.size import BYTES, file_windows
from data.text import Windows
from data.token_file import TokenFile

CONTEXT = 10


def written(path: Path, dtype: str = "uint16", count: int = 95) -> str:
    (7 * np.arange(count) % 61).astype(dtype).tofile(path)
    return str(path)


def module(path: str, **changes: object) -> TokenFile:
    return TokenFile(**{"path": path, "context": CONTEXT, "vocab_size": 61, "batch_size": 4, **changes})


@pytest.mark.parametrize("dtype", BYTES)
def test_the_batches_are_the_windows_of_the_tokens(tmp_path: Path, dtype: str) -> None:
    path = written(tmp_path / "train.bin", dtype)
    given = module(path, dtype=dtype, val_path=path, seed=3)
    given.setup()
    tokens = torch.from_numpy(np.fromfile(path, dtype).astype(np.int64))
    assert len(given.splits.train) == file_windows(path, CONTEXT, dtype)
    for source, other in (
        (given.splits.train, Windows(tokens, CONTEXT, 3)),
        (given.splits.val, Windows(tokens, CONTEXT)),
    ):
        for epoch in (0, 1):
            pick = Pick(epoch, torch.arange(len(source)).flip(0))
            ((inputs, targets),), ((wanted, wanted_targets),) = source.batches([pick]), other.batches([pick])
            assert inputs.dtype == torch.int64
            assert torch.equal(inputs, wanted)
            assert torch.equal(targets, wanted_targets)


def test_the_tokens_stay_in_the_file_and_the_batches_go_to_the_device(tmp_path: Path) -> None:
    given = module(written(tmp_path / "train.bin"))
    given.setup()
    source = given.splits.train.to(torch.device("meta"))
    assert source.home == torch.device("cpu")
    assert source.tokens.data_ptr() == given.splits.train.tokens.data_ptr()
    ((inputs, targets),) = source.batches([Pick(0, torch.arange(2))])
    assert inputs.device.type == targets.device.type == "meta"


def test_private_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def private() -> int:
        status = Path("/proc/self/status")
        if not status.exists():
            pytest.skip("the system tells no private memory")
        return int(next(line for line in status.read_text().splitlines() if line.startswith("RssAnon")).split()[1])

    with (tmp_path / "train.bin").open("wb") as file:
        file.truncate(2**28)
    given = module(str(tmp_path / "train.bin"), context=1024)
    given.setup()
    before = private()
    for _ in given.splits.train.batches([Pick(0, torch.arange(i, 130_000, 500)) for i in range(400)]):
        pass
    assert private() - before < 60_000, "KiB, of 262,144"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"dtype": "float32"}, "data.dtype='float32' is unknown: use uint8,"),
        ({"dtype": "int32"}, "is no whole number of tokens of data.dtype=int32: its last has 2 bytes"),
        ({"context": 95}, "has 95 tokens: a window of data.context=95 needs more"),
        ({"tokens_per_sample": 3}, "data.tokens_per_sample=3 must be data.context=10"),
        ({"vocab_size": 0}, "data.vocab_size=0 must be a whole number"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, changes: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        module(written(tmp_path / "train.bin"), **changes).setup()
    with pytest.raises(FileNotFoundError, match="data.val_path=nowhere is not a file"):
        module(written(tmp_path / "train.bin"), val_path="nowhere").setup()


def test_a_token_outside_the_vocabulary_is_told(tmp_path: Path) -> None:
    given = module(written(tmp_path / "train.bin"), vocab_size=60)
    given.setup()
    with pytest.raises(SampleError, match=r"data.vocab_size=60, and the file has the token 60: set it to at least 61"):
        next(given.splits.train.batches([Pick(0, torch.arange(8))]))
