"""Windows of characters must be those that a plan counts without torch, and never reach into the held-out tail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.size import cut, phased_windows, windows
from data.stream import Loop
from data.text import Text, Windows

TEXT = "".join(chr(ord("a") + i % 26) for i in range(500)) + "\nÄ€😀"


def written(folder: Path, content: str = TEXT) -> str:
    file = folder / "input.txt"
    file.write_text(content, encoding="utf-8")
    return str(file)


def text(path: str, **changes: object) -> Text:
    return Text(**{"path": path, "context": 10, "batch_size": 4, **changes})


def epoch(source: Windows, number: int) -> torch.Tensor:
    from data.order import Pick

    ((inputs, targets),) = source.batches([Pick(number, torch.arange(len(source)))])
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    return torch.cat([inputs, targets[:, -1:]], dim=1)


def test_the_vocabulary_is_the_sorted_set_of_characters_and_decodes_the_file(tmp_path: Path) -> None:
    module = text(written(tmp_path))
    module.setup()
    assert module.vocabulary == "".join(sorted(set(TEXT)))
    assert module.shape == {"vocab_size": len(set(TEXT)), "context": 10}
    parts = [split.tokens for split in module.splits if split is not None]
    assert "".join(module.vocabulary[token] for token in torch.cat(parts)) == TEXT


def test_other_text_has_the_vocabulary_of_the_run_and_another_one_stops_a_resume(tmp_path: Path) -> None:
    first = text(written(tmp_path, "abcd" * 30))
    first.setup()
    state = first.state_dict()
    other = text(written(tmp_path, "cb" * 60))
    other.load_state_dict(state)
    other.setup()
    assert other.shape == first.shape
    assert set(other.splits.train.tokens.tolist()) == {1, 2}
    unknown = text(written(tmp_path, "cbx" * 60))
    unknown.load_state_dict(state)
    with pytest.raises(ValueError, match="has the character 'x', with which the run was not trained"):
        unknown.setup()
    changed = text(written(tmp_path, "abce" * 30))
    changed.setup()
    with pytest.raises(ValueError, match="data: vocabulary is 'abce', and was 'abcd' when the checkpoint was written"):
        changed.check_run(1, {"Text": state})


def test_the_tail_is_held_out_with_the_test_part_last(tmp_path: Path) -> None:
    module = text(written(tmp_path), val_fraction=0.2, test_fraction=0.1)
    module.setup()
    assert [len(split.tokens) for split in module.splits] == [354, 100, 50]
    assert module.splits.train.tokens.data_ptr() < module.splits.val.tokens.data_ptr()
    assert module.splits.test.tokens[-1] == module.vocabulary.index("😀")


@pytest.mark.parametrize("chars", range(20, 61))
def test_as_many_windows_fit_from_every_phase_as_are_counted(chars: int) -> None:
    tokens = torch.arange(chars)
    for seed in range(30):
        source = Windows(tokens, 10, seed)
        rows = epoch(source, 0)
        assert len(rows) == phased_windows(chars, 10)
        assert torch.equal(rows, source.phase(0) + 10 * torch.arange(len(rows))[:, None] + torch.arange(11))


def test_the_phase_depends_on_the_epoch_and_reaches_every_offset() -> None:
    source = Windows(torch.arange(500), 10, seed=3)
    assert {source.phase(number) for number in range(200)} == set(range(10))
    assert epoch(source, 4).tolist() == epoch(Windows(torch.arange(500), 10, seed=3), 4).tolist()


def test_held_out_windows_start_at_the_first_character() -> None:
    rows = epoch(Windows(torch.arange(41), 10), 7)
    assert rows[:, 0].tolist() == [0, 10, 20, 30]
    assert len(Windows(torch.arange(40), 10)) == 3


def test_a_training_batch_is_contiguous_int64_of_one_context(tmp_path: Path) -> None:
    module = text(written(tmp_path))
    module.setup()
    module.follow(lambda: 0, Loop(total=9, validation_interval=9, pauses=(), steps_per_execution=1, accumulate=1))
    inputs, targets = next(iter(module.train_dataloader()))[0][0].batch
    assert inputs.shape == targets.shape == (4, 10)
    assert inputs.dtype == targets.dtype == torch.int64
    assert targets.is_contiguous()
    assert module.tokens_per_sample == 10


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.0), (0.0, 0.0), (0.25, 0.2)])
def test_the_plan_counts_the_windows_that_the_data_has(tmp_path: Path, val: float, test: float) -> None:
    path = written(tmp_path)
    module = text(path, val_fraction=val, test_fraction=test, samples=windows(path, 10, val, test))
    module.setup()
    assert module.train_samples == module.samples


def test_counting_windows_imports_no_torch(tmp_path: Path) -> None:
    code = (
        f"import sys; from data.size import windows; print(windows({written(tmp_path)!r}, 10), 'torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["44", "False"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"context": 0}, "data.context=0"),
        ({"context": 300}, "data.context=300"),
        ({"context": 60}, "data.val_fraction"),
        ({"val_fraction": 1.0}, "data.val_fraction=1.0"),
        ({"val_fraction": -0.1}, "data.val_fraction=-0.1"),
        ({"test_fraction": 0.95}, "leave nothing"),
        ({"tokens_per_sample": 9}, "data.tokens_per_sample=9"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused_in_one_line(tmp_path: Path, changes: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named) as error:
        text(written(tmp_path), **changes).setup()
    assert "\n" not in str(error.value)


def test_a_missing_empty_or_binary_file_is_refused_in_one_line(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.txt")
    binary = tmp_path / "binary"
    binary.write_bytes(b"ab\xff\xfe")
    for path, kind in [(missing, FileNotFoundError), (str(binary), ValueError), (written(tmp_path, ""), ValueError)]:
        for use in (lambda path=path: windows(path, 10), text(path).setup):
            with pytest.raises(kind, match="data.path=") as error:
                use()
            assert "\n" not in str(error.value)


@pytest.mark.data
def test_the_real_file_has_the_windows_that_were_counted() -> None:
    if not (root := os.environ.get("CADENCE_DATA")):
        pytest.skip("CADENCE_DATA does not name a folder with tinyshakespeare/input.txt")
    path = str(Path(root) / "tinyshakespeare" / "input.txt")
    module = text(path, context=256, samples=windows(path, 256))
    module.setup()
    assert module.train_samples == (cut(1_115_394, 0.1, 0.0)[0] - 256) // 256 == 3920
    assert module.shape == {"vocab_size": 65, "context": 256}


def test_windows_line_ends_are_read_as_others_and_the_table_of_the_run_says_so(tmp_path: Path) -> None:
    plain, windows_file = tmp_path / "plain.txt", tmp_path / "windows.txt"
    plain.write_bytes(TEXT.encode())
    windows_file.write_bytes(TEXT.replace("\n", "\r\n").encode())
    ours, theirs = text(str(plain)), text(str(windows_file))
    assert ours.shape == theirs.shape
    assert (ours.notes, theirs.notes) == ([], ["line ends \\r\\n are read as \\n"])
