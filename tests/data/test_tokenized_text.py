"""Text files become the tokens that the tokenizer gives, packed or line by line with padding that does not count."""

from pathlib import Path
from typing import Any

import pytest
import torch

from data.order import Pick
from data.padding import Pad
from data.stream import Loop
from data.tokenized_text import TokenizedText
from tests.data.small_tokenizer import WORDS, make_tokenizer

LINES = ["the quick brown fox", "a lazy dog", "", "very good film and bad cat jumps over the dog", "fox"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def tokenized(path: Path, tokenizer: str, **settings: Any) -> TokenizedText:
    module = TokenizedText(**{"path": str(path), "tokenizer": tokenizer, "context": 4, "batch_size": 2, **settings})
    module.setup()
    return module


def number(word: str) -> int:
    return WORDS.index(word) + 3


def test_packed_text_is_cut_into_windows_with_an_end_after_each_file(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "a.txt").write_text("the quick\nbrown fox jumps")
    (tmp_path / "b.txt").write_text("a lazy dog nonsense")
    module = tokenized(tmp_path, tokenizer, val_fraction=0)
    expected = [*map(number, "the quick brown fox jumps".split()), 1, *map(number, "a lazy dog".split()), 0, 1]
    stored = module.splits.train.stored  # type: ignore[attr-defined]
    assert stored["input_ids"].tolist() == [expected[:4], expected[4:8]]
    assert torch.equal(stored["labels"], stored["input_ids"])
    assert stored["attention_mask"].eq(1).all()
    assert module.shape == {"vocab_size": len(WORDS) + 3, "context": 4}
    assert module.tokens_per_sample == 4
    whole = tokenized(tmp_path / "a.txt", tokenizer, context=2, val_fraction=0.35, test_fraction=0.0)
    assert [part and len(part) for part in whole.splits] == [2, 1, None]


@pytest.mark.parametrize("pad", [True, False])
def test_lines_are_samples_and_padding_has_no_label(tmp_path: Path, pad: bool) -> None:
    own = make_tokenizer(tmp_path / "tokenizer", pad)
    (tmp_path / "t.txt").write_text("\n".join(LINES))
    module = tokenized(tmp_path / "t.txt", own, packed=False, context=6, val_fraction=0)
    batch = next(module.splits.train.batches([Pick(0, torch.arange(4))]))
    kept = [line.split()[:6] for line in LINES if line]
    shift = 3 if pad else 2
    for i, words in enumerate(kept):
        ids = [WORDS.index(word) + shift for word in words]
        assert batch["input_ids"][i].tolist() == ids + [2 if pad else 1] * (6 - len(ids))
        assert batch["labels"][i].tolist() == ids + [-100] * (6 - len(ids))
        assert batch["attention_mask"][i].tolist() == [1] * len(ids) + [0] * (6 - len(ids))
    assert module.tokens_per_sample is None


def test_lines_of_similar_length_make_a_batch(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "t.txt").write_text("\n".join(" ".join(WORDS[: 1 + i % 12]) for i in range(240)))
    module = tokenized(tmp_path / "t.txt", tokenizer, packed=False, context=20, sampling="bucketed", batch_size=8)
    module.follow(lambda: 0, Loop(total=27, validation_interval=27))
    shapes = [micro.batch["input_ids"] for chunk in module.train_dataloader() for update in chunk for micro in update]
    assert sum((ids == 2).sum().item() for ids in shapes) < 0.05 * sum(ids.numel() for ids in shapes)


def test_values_of_unequal_shapes_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"image has the shapes \(3, 2\), \(3, 4\)"):
        Pad()([{"image": torch.zeros(3, 2)}, {"image": torch.zeros(3, 4)}])
    batch = Pad(7)([{"id": "x", "input_ids": [1], "n": 1.5}, {"id": "y", "input_ids": [1, 2], "n": 2.5}])
    assert (batch["id"], batch["input_ids"].tolist(), batch["n"].tolist()) == (["x", "y"], [[1, 7], [1, 2]], [1.5, 2.5])


def test_text_and_tokenizers_that_cannot_be_read_are_refused(tmp_path: Path, tokenizer: str) -> None:
    (tmp_path / "t.txt").write_text("the fox")
    (tmp_path / "blank.txt").write_text(" \n ")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "empty").mkdir()
    for told, path, settings in (
        ("data.path=.*none.txt is not a file", "none.txt", {}),
        ("data.path=.*empty holds no .txt file", "empty", {}),
        ("latin.txt is not UTF-8 text", "latin.txt", {}),
        ("data.path=.*t.txt is too short to train on: it needs data.context=4 tokens", "t.txt", {}),
        ("data.path=.*blank.txt is too short to train on: it needs a line", "blank.txt", {"packed": False}),
        ("data.tokenizer=.*nowhere cannot be loaded", "t.txt", {"tokenizer": str(tmp_path / "nowhere")}),
        ("data.context=1 ", "t.txt", {"context": 1}),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=told) as error:
            tokenized(tmp_path / path, **{"tokenizer": tokenizer, **settings})
        assert "\n" not in str(error.value)
