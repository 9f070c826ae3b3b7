"""Any data set of `datasets` gives batches by name or pairs; splits, columns and labels that do not fit are refused."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from data.hub_dataset import HubDataset
from data.order import Pick
from tests.data.small_tokenizer import WORDS, make_tokenizer

TEXTS = ["good film", "very bad film", "a very very good cat", "bad dog", "the quick fox", "lazy"]
LABELS = [1, 0, 1, 0, 1, 0]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def saved(folder: Path, **columns: list) -> str:
    """A data set with the splits train and test, as `save_to_disk` writes it."""
    rows = datasets.Dataset.from_dict(columns)
    datasets.DatasetDict(train=rows, test=rows.select(range(2))).save_to_disk(str(folder))
    return str(folder)


def hub(path: str, **settings: Any) -> HubDataset:
    module = HubDataset(**{"path": path, "batch_size": 2, "val_fraction": 0, **settings})
    module.setup()
    return module


def first(source: Any, count: int) -> Any:
    return next(source.batches([Pick(0, torch.arange(count))]))


def test_texts_become_padded_tokens_and_columns_get_other_names(tmp_path: Path, tokenizer: str) -> None:
    path = saved(tmp_path / "set", review=TEXTS, label=LABELS, id=list("abcdef"))
    settings = {"text": "review", "tokenizer": tokenizer, "label": "label", "rename": {"label": "labels"}}
    module = hub(path, **settings, max_length=4, columns=["id"], test_split="test")
    batch = first(module.splits.train, 3)
    assert batch.keys() - {"token_type_ids"} == {"id", "labels", "input_ids", "attention_mask"}
    ids = [[WORDS.index(word) + 3 for word in text.split()][:4] for text in TEXTS[:3]]
    assert batch["input_ids"].tolist() == [row + [2] * (4 - len(row)) for row in ids]
    assert batch["attention_mask"].tolist() == [[1] * len(row) + [0] * (4 - len(row)) for row in ids]
    assert batch["labels"].tolist() == LABELS[:3]
    assert batch["id"] == ["a", "b", "c"]
    assert module.shape == {"vocab_size": len(WORDS) + 3, "classes": 2}
    assert len(module.splits.test) == 2  # type: ignore[arg-type]
    assert module.splits.val is None


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "folder", "disk"])
def test_files_and_folders_are_read(tmp_path: Path, kind: str) -> None:
    rows = datasets.Dataset.from_dict({"x": [0.5, 1.5, 2.5, 3.5], "y": [0, 1, 0, 1]})
    path = tmp_path / ("set" if kind in ("folder", "disk") else f"set.{kind}")
    if kind == "csv":
        rows.to_csv(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        rows.to_parquet(path)
    elif kind == "disk":
        rows.save_to_disk(str(path))
    else:
        path.mkdir()
        rows.to_csv(path / "train.csv")
    inputs, targets = first(hub(str(path), inputs="x", label="y").splits.train, 4)
    assert (inputs.tolist(), targets.tolist()) == ([0.5, 1.5, 2.5, 3.5], [0, 1, 0, 1])


def test_a_share_is_held_out_by_the_split_seed_and_labels_serve_samplings_and_folds(tmp_path: Path) -> None:
    path = saved(tmp_path / "set", x=list(range(60)), y=[int(i % 10 == 0) for i in range(60)])
    module = hub(path, inputs="x", label="y", val_fraction=0.25, sampling="balanced", folds=3, fold=0)
    assert [part and len(part) for part in module.splits] == [40, 20, None]
    assert sum(int(module.splits.val.dataset[i]["y"]) for i in range(20)) == 2  # type: ignore[union-attr]
    first_val, again = (
        [hub(path, val_fraction=0.25, seed=seed).splits.val.dataset[i]["x"].item() for i in range(15)]  # type: ignore[union-attr]
        for seed in (0, 1)
    )
    assert first_val == again


def test_images_are_floats_from_0_to_1_also_of_16_bits(tmp_path: Path) -> None:
    images = [Image.new("RGB", (4, 4), (255, 0, 51)), Image.new("I;16", (4, 4), 32_768)]
    rows = datasets.Dataset.from_dict({"image": images, "y": [0, 1]}).cast_column("image", datasets.Image())
    rows.save_to_disk(str(tmp_path / "set"))
    inputs, _ = first(hub(str(tmp_path / "set"), inputs="image", label="y").splits.train, 2)
    assert inputs.shape == (2, 3, 4, 4)
    assert np.allclose(inputs[:, :, 0, 0], [[1, 0, 0.2], [0.5, 0.5, 0.5]], atol=0.003)


def test_texts_of_similar_length_make_a_batch(tmp_path: Path, tokenizer: str) -> None:
    path = saved(tmp_path / "set", text=[" ".join(WORDS[: 1 + i % 12]) for i in range(48)])
    module = hub(path, text="text", tokenizer=tokenizer, sampling="bucketed")
    assert module._sampling.keywords["lengths"].tolist() == [1 + i % 12 for i in range(48)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([0, 1, None, 0, 1, 0], "column y of train: row 2 has no label"),
        ([1, 2, 3, 1, 2, 3], "row 2 has the label 3: give 0 to 2, since classes are counted from 0"),
        ([0, 1, -100, 0, 1, 0], "row 2 has the label -100"),
        ([0.0, 1.0] * 3, "row 0 has the label 0.0: give whole numbers"),
        (list("ababab"), "row 0 has the label 'a'"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_their_row(tmp_path: Path, labels: list, told: str) -> None:
    path = saved(tmp_path / "set", x=list(range(6)), y=labels)
    with pytest.raises(ValueError, match=told) as error:
        hub(path, inputs="x", label="y")
    assert "\n" not in str(error.value)


def test_an_ignored_label_may_occur_and_named_classes_are_counted(tmp_path: Path) -> None:
    path = saved(tmp_path / "a", x=list(range(6)), y=[0, 1, -100, 0, 1, 0])
    assert hub(path, inputs="x", label="y", ignore_index=-100).shape == {"classes": 2}
    features = datasets.Features({"x": datasets.Value("int64"), "y": datasets.ClassLabel(names=list("abcd"))})
    datasets.Dataset.from_dict({"x": [1, 2], "y": [0, 3]}, features).save_to_disk(str(tmp_path / "b"))
    assert hub(str(tmp_path / "b"), inputs="x", label="y").shape == {"classes": 4}


def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, tokenizer: str) -> None:
    path = saved(tmp_path / "set", text=["a", None, "b", "c", "d", "e"], y=LABELS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.parquet").write_text("no table")
    for told, place, settings in (
        ("data.path=.*empty cannot be read as a data set", str(tmp_path / "empty"), {}),
        ("data.path=.*bad.parquet cannot be read as a data set", str(tmp_path / "bad.parquet"), {}),
        ("data.val_split=valid is not in data.path=.*: it has train, test", path, {"val_split": "valid"}),
        ("has no column z in train: it has text, y", path, {"columns": ["z"]}),
        ("column text of train: row 1 has no text", path, {"text": "text", "tokenizer": tokenizer}),
        ("data.text and data.tokenizer belong together", path, {"text": "text"}),
        ("data.inputs=text makes pairs", path, {"inputs": "text"}),
        ("data.tokenizer=.*nowhere cannot be loaded", path, {"text": "y", "tokenizer": str(tmp_path / "nowhere")}),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=told) as error:
            hub(place, **settings)
        assert "\n" not in str(error.value)


def test_a_path_that_is_not_here_is_told_before_the_hub_is_asked(monkeypatch, capsys) -> None:
    def asked(*words: object) -> None:
        assert "data.path=mine/set: there is no such file or folder here; asking the hub" in capsys.readouterr().err
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", asked)
    with pytest.raises(FileNotFoundError, match="no network"):
        hub("mine/set")
