"""A run stopped anywhere and resumed ends with the same bits as one that was never stopped."""

import json

import pytest
import torch

from trainer.assemble.run import evaluate, fit, resume_point
from trainer.checkpoint import BEST, history, numbered, read
from trainer.lr import Refusal

DIGITS = (
    *("data.batch_size=32", "model.hidden=[16]", "model.dropout=0.3", "trainer.accumulate=2"),
    *("trainer.duration=40", "trainer.validate=12", "trainer.updates_per_call=5", "schedule=cosine_warmup"),
)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("the quick brown fox jumps over the lazy dog, and once more.\n" * 40)
    return (
        *("data=text", f"data.path={path}", "data.context=8", "data.batch_size=8", "model=gpt", "model.layers=1"),
        *("model.heads=2", "model.width=16", "model.dropout=0.2", "task=language_modelling", "optimizer=sgd"),
        *("trainer.duration=64", "trainer.validate=20", "trainer.clip=0.5", "schedule=wsd", "warmup=linear"),
    )


def end_of(assembly):
    """Weights, optimizer state and best score at the end of a run."""
    (optimizer,) = assembly.trainer.optimizers
    state = {f"{i}.{key}": value for i, part in optimizer.state_dict()["state"].items() for key, value in part.items()}
    return {**assembly.module.state_dict(), **state}, assembly.checkpointing.best


def same(first, second):
    return first[0].keys() == second[0].keys() and all(torch.equal(first[0][k], second[0][k]) for k in first[0])


@pytest.mark.parametrize("kind", ["digits", "text"])
def test_a_run_resumed_at_any_update_ends_with_the_same_bits(assembled, text, kind):
    overrides = DIGITS if kind == "digits" else text
    whole = assembled(*overrides, "trainer.checkpoint=1", "trainer.keep=0", folder="whole")
    fit(whole, None)
    expected = end_of(whole)
    points = history(whole.folder / "checkpoints")[:-1:2]
    assert len(points) >= 20 if kind == "digits" else 32
    for point in points:
        resumed = assembled(*overrides, folder=f"from-{point.stem}")
        fit(resumed, point)
        ending = end_of(resumed)
        assert same(ending, expected), f"resumed at {point.stem}"
        assert ending[1] == expected[1]
        assert resumed.module.clock.t == whole.module.clock.t


def test_another_seed_does_end_with_other_bits(assembled):
    first, second = (assembled(*DIGITS, f"seed={seed}", folder=str(seed)) for seed in (0, 1))
    fit(first, None)
    fit(second, None)
    assert not same(end_of(first), end_of(second))


def test_the_number_of_updates_per_call_changes_no_bit(assembled):
    ends = []
    for count in (1, 7, 100):
        assembly = assembled(*DIGITS, f"trainer.updates_per_call={count}", folder=str(count))
        fit(assembly, None)
        ends.append(end_of(assembly))
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


def test_a_checkpoint_holds_plain_containers_and_no_loop_counters(assembled):
    assembly = assembled(*DIGITS)
    fit(assembly, None)
    for path in (assembly.checkpointing.folder / BEST, numbered(assembly.checkpointing.folder, 40)):
        checkpoint = torch.load(path, weights_only=True)
        assert "loops" not in checkpoint
        assert checkpoint["cadence"]["updates"] == checkpoint["global_step"]
        assert checkpoint["cadence"]["config"]["optimizer"]["lr"] == 0.003


def test_an_edited_number_holds_from_the_resumed_update_on_and_is_told(assembled, capsys):
    first = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder="first")
    fit(first, None)
    edits = ("optimizer.lr=0.0001", "optimizer.weight_decay=0.5", "optimizer.betas=[0.8,0.99]")
    second = assembled(*DIGITS, *edits, folder="second")
    fit(second, numbered(first.checkpointing.folder, 20))
    (optimizer,) = second.trainer.optimizers
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.99) or optimizer.param_groups[0]["betas"] == [0.8, 0.99]
    assert optimizer.param_groups[0]["lr"] == second.module.recipe.policy.lr(39)
    told = capsys.readouterr().err
    for change in ("optimizer.lr: 0.003 → 0.0001", "optimizer.weight_decay: 0.01 → 0.5"):
        assert f"resumed at update 20, from there on {change}" in told


def test_a_longer_run_goes_on_along_its_own_curve(assembled):
    short = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder="short")
    fit(short, None)
    long = assembled(*DIGITS, "trainer.duration=60", folder="long")
    fit(long, numbered(short.checkpointing.folder, 20))
    assert long.module.clock.t == 60
    assert long.module.control.applied == long.module.recipe.policy.lrs(59)


def test_the_best_checkpoint_of_the_earlier_folder_is_taken_along(assembled):
    first = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder="first")
    fit(first, None)
    second = assembled(*DIGITS, "optimizer.lr=1e-9", folder="second")
    fit(second, numbered(first.checkpointing.folder, 36))
    assert read(second.checkpointing.folder / BEST)["cadence"]["updates"] == second.checkpointing.best["update"]
    assert set(evaluate(second)) == {"loss", "accuracy"}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.batch_size=16"], "batch_size"),
        (["trainer.accumulate=1"], "batch_size"),
        (["trainer.duration=36"], "lengthen trainer.duration"),
    ],
)
def test_a_checkpoint_whose_clock_does_not_fit_is_refused(assembled, overrides, says):
    first = assembled(*DIGITS, folder="first")
    fit(first, None)
    with pytest.raises(Refusal, match=says):
        fit(assembled(*DIGITS, *overrides, folder="second"), numbered(first.checkpointing.folder, 40))


def test_another_model_or_grouping_is_refused(assembled):
    first = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder="first")
    fit(first, None)
    for overrides in (["model.hidden=[8]"], ["optimizer.weight_decay=0.0"]):
        with pytest.raises(Refusal):
            fit(assembled(*DIGITS, *overrides, folder="second"), numbered(first.checkpointing.folder, 20))


def test_auto_takes_the_newest_by_its_number_and_starts_afresh_where_there_is_none(tmp_path):
    folder = tmp_path / "run"
    assert resume_point("auto", folder) is None
    (folder / "checkpoints").mkdir(parents=True)
    for update in (100, 20, 3):
        numbered(folder / "checkpoints", update).touch()
    assert resume_point("auto", folder) == numbered(folder / "checkpoints", 100)
    assert resume_point(str(folder), tmp_path) == numbered(folder / "checkpoints", 100)
    with pytest.raises(Refusal, match="holds a run already"):
        resume_point("none", folder)
    for bad in ("nowhere.ckpt", str(tmp_path)):
        with pytest.raises(Refusal, match="resume="):
            resume_point(bad, folder)


@pytest.mark.parametrize("damage", ["truncated", "text", "foreign", "code"])
def test_a_file_that_is_no_checkpoint_of_ours_is_refused_and_runs_no_code(tmp_path, damage):
    path, marker = tmp_path / "bad.ckpt", tmp_path / "marker"

    class Code:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    content = {"foreign": {"state_dict": {}}, "code": {"cadence": Code()}}.get(damage, {"cadence": {}})
    torch.save(content, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    if damage == "text":
        path.write_text(json.dumps({"cadence": {}}))
    with pytest.raises(Refusal, match="bad.ckpt") as refusal:
        read(path)
    assert "\n" not in str(refusal.value)
    assert not marker.exists()
