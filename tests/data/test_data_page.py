"""The page on sampling, folds and shipped data holds: its commands train."""

import re
import shlex
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.small_tokenizer import WORDS, make_tokenizer

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
SHORT = ("trainer.duration=40", "trainer.validate=40", "logger=none", "data.batch_size=4")
COMMANDS = [shlex.split(line) for line in re.findall(r"```bash\n(.*?)```", PAGE.replace("\\\n", ""), re.DOTALL)]


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The cache of `datasets` in a folder of the test's own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def make_files(folder: Path) -> None:
    """The data that the commands read."""
    houses = "".join(f"{i % 9},{i % 4 or ''},{'abc'[i % 3]},{i % 2}\n" for i in range(400))
    (folder / "houses.csv").write_text("rooms,floors,district,sold\n" + houses)
    for label in "ab":
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(80):
            Image.new("RGB", (40, 36), (i, 90, 200 * (label == "a"))).save(folder / "photos" / label / f"{i}.png")
    make_tokenizer(folder / "words")
    (folder / "stories.txt").write_text("".join(f"{' '.join(WORDS[i % 5 : 5 + i % 9])}\n" for i in range(300)))
    for name in ("train", "val"):
        (np.arange(4000, dtype=np.uint16) % 65).tofile(folder / f"{name}.bin")
    (folder / "rows").mkdir()
    for number in range(2):
        rows = {"inputs": np.random.default_rng(number).normal(size=(200, 4)).tolist(), "kind": np.arange(200) % 3}
        pq.write_table(pyarrow.table(rows), folder / "rows" / f"{number}.parquet", row_group_size=50)
    reviews = "".join(f"{' '.join(WORDS[i % 3 : 4 + i % 9])},{i % 2}\n" for i in range(300))
    (folder / "reviews.csv").write_text("review,good\n" + reviews)


@pytest.mark.sample(4)
@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words[2:]) for words in COMMANDS])
def test_a_command_of_the_page_trains(cached, assembled, tmp_path, monkeypatch, words) -> None:
    from trainer.run import fit

    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "curriculum.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path)
    assert words[:2] == ["cadence", "train"]
    given = [word for word in words[2:] if word != "-m"]
    swept = [word.partition(",")[0] if word.startswith("data.fold=") else word for word in given]
    small = ["model.width=4"] if "model=resnet9" in words else []
    parts = assembled(*SHORT, *small, *swept)
    fit(parts)
    assert parts.module.clock.t == 40
