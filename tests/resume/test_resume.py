"""A run stopped anywhere and resumed ends with the same bits as one that was never stopped."""

import json
import shutil

import pytest
import torch

from trainer.checkpoint.io import BEST, checkpoint_path, checkpoints_in, read
from trainer.config.run_summary import announce
from trainer.lr import ConfigError
from trainer.resume.changes import print_changes
from trainer.resume.curve_history import ResumeSettings
from trainer.resume.resume_point import candidates, check_unused, resume_point
from trainer.run import evaluate, fit

DIGITS = (
    *("data.batch_size=32", "model.hidden=[16]", "model.dropout=0.3", "trainer.accumulate=2"),
    *("trainer.duration=40", "trainer.validate=12", "trainer.steps_per_execution=5", "schedule=cosine_warmup"),
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


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["digits", "text"])
def test_a_run_resumed_at_any_update_ends_with_the_same_bits(assembled, text, kind, all_cases):
    overrides = DIGITS if kind == "digits" else text
    whole = assembled(*overrides, "trainer.checkpoint=1", "trainer.keep=0", folder="whole")
    fit(whole)
    expected = end_of(whole)
    points = checkpoints_in(whole.folder / "checkpoints")[:-1:2]
    assert len(points) == (20 if kind == "digits" else 32)
    for point in points if all_cases else points[1::4]:
        resumed = assembled(*overrides, folder=f"from-{point.stem}", resumed=point)
        fit(resumed)
        ending = end_of(resumed)
        assert same(ending, expected), f"resumed at {point.stem}"
        assert ending[1] == expected[1]
        assert resumed.module.clock.t == whole.module.clock.t


def test_a_run_in_float64_goes_on_with_all_of_its_bits(assembled):
    words = (*DIGITS, "trainer.precision=64-true", "average=ema")
    whole = assembled(*words, "trainer.checkpoint=20", "trainer.keep=0", folder="whole")
    fit(whole)
    point = checkpoint_path(whole.checkpointing.folder, 20)
    resumed = assembled(*words, folder="resumed", resumed=point)
    fit(resumed)
    assert resumed.module.net.layers[1].weight.dtype == torch.float64
    assert same(end_of(resumed), end_of(whole))


def test_another_seed_does_end_with_other_bits(assembled):
    first, second = (assembled(*DIGITS, f"seed={seed}", folder=str(seed)) for seed in (0, 1))
    fit(first)
    fit(second)
    assert not same(end_of(first), end_of(second))


def test_the_number_of_updates_per_call_changes_no_bit(assembled):
    ends = []
    for count in (1, 7, 100):
        assembly = assembled(*DIGITS, f"trainer.steps_per_execution={count}", folder=str(count))
        fit(assembly)
        ends.append(end_of(assembly))
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])


def test_a_checkpoint_holds_plain_containers_and_no_loop_counters(assembled):
    assembly = assembled(*DIGITS)
    fit(assembly)
    for path in (assembly.checkpointing.folder / BEST, checkpoint_path(assembly.checkpointing.folder, 40)):
        checkpoint = torch.load(path, weights_only=True)
        assert "loops" not in checkpoint
        assert checkpoint["cadence"]["updates"] == checkpoint["global_step"]
        assert checkpoint["cadence"]["config"]["optimizer"]["lr"] == 0.003


def test_an_edited_number_holds_from_the_resumed_update_on_and_is_told(assembled, capsys):
    first = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder="first")
    fit(first)
    edits = ("optimizer.lr=0.0001", "optimizer.weight_decay=0.5", "optimizer.betas=[0.8,0.99]")
    middle = checkpoint_path(first.checkpointing.folder, 20)
    second = assembled(*DIGITS, *edits, "resume.policy=override", folder="second", resumed=middle)
    fit(second)
    (optimizer,) = second.trainer.optimizers
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.99) or optimizer.param_groups[0]["betas"] == [0.8, 0.99]
    assert optimizer.param_groups[0]["lr"] == second.module.spec.policy.lr(39)
    told = capsys.readouterr().err
    for change in ("optimizer.lr: 0.003 → 0.0001", "optimizer.weight_decay: 0.01 → 0.5"):
        assert f"resumed at update 20, from there on {change}" in told


def test_a_longer_run_goes_on_along_its_own_curve(assembled):
    short = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder="short")
    fit(short)
    middle = checkpoint_path(short.checkpointing.folder, 20)
    long = assembled(*DIGITS, "trainer.duration=60", "resume.policy=stretch", folder="long", resumed=middle)
    fit(long)
    assert long.module.clock.t == 60
    assert long.module.control.applied == long.module.spec.policy.lrs(59)


def test_the_best_checkpoint_of_the_earlier_folder_is_taken_along(assembled):
    first = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder="first")
    fit(first)
    late = checkpoint_path(first.checkpointing.folder, 36)
    second = assembled(*DIGITS, "optimizer.lr=1e-9", "resume.policy=override", folder="second", resumed=late)
    fit(second)
    assert read(second.checkpointing.folder / BEST)["cadence"]["updates"] == second.checkpointing.best["update"]
    assert set(evaluate(second)) == {"loss", "accuracy"}


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["data.batch_size=16"], "global batch 64 → 32"),
        (["trainer.accumulate=1"], "global batch 64 → 32"),
        (["trainer.duration=36", "resume.policy=continue"], "lengthen trainer.duration"),
    ],
)
def test_a_checkpoint_whose_clock_does_not_fit_is_refused(assembled, overrides, says):
    first = assembled(*DIGITS, folder="first")
    fit(first)
    last = checkpoint_path(first.checkpointing.folder, 40)
    with pytest.raises(ConfigError, match=says):
        assembled(*DIGITS, *overrides, folder="second", resumed=last)


def test_another_model_or_grouping_is_refused(assembled):
    first = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder="first")
    fit(first)
    for overrides in (["model.hidden=[8]"], ["optimizer.weight_decay=0.0"]):
        with pytest.raises(ConfigError):
            assembled(*DIGITS, *overrides, folder="second", resumed=checkpoint_path(first.checkpointing.folder, 20))


def test_auto_takes_the_newest_by_its_number_and_starts_afresh_where_there_is_none(tmp_path):
    folder = tmp_path / "run"
    assert candidates("auto", folder) == []
    (folder / "checkpoints").mkdir(parents=True)
    for update in (100, 20, 3):
        checkpoint_path(folder / "checkpoints", update).touch()
    assert [path.stem[-3:] for path in candidates("auto", folder)] == ["100", "020", "003"]
    assert candidates(str(folder), tmp_path) == candidates("auto", folder)
    assert candidates("none", folder) == []
    (folder / "config.yaml").touch()
    check_unused(folder, "auto", None)
    check_unused(folder, str(folder), checkpoint_path(folder / "checkpoints", 100))
    for resumed in (None, tmp_path / "elsewhere" / "update-00000003.ckpt"):
        with pytest.raises(ConfigError, match="holds a run already"):
            check_unused(folder, "none", resumed)
    for bad in ("nowhere.ckpt", str(tmp_path)):
        with pytest.raises(ConfigError, match="resume.path="):
            candidates(bad, folder)


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
    with pytest.raises(ConfigError, match="bad.ckpt") as refusal:
        read(path)
    assert "\n" not in str(refusal.value)
    assert not marker.exists()


def test_a_branch_inside_the_folder_of_newer_checkpoints_is_refused_and_loses_nothing(assembled):
    first = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0")
    fit(first)
    before = {path.name: path.read_bytes() for path in first.checkpointing.folder.iterdir()}
    with pytest.raises(ConfigError, match="resume=auto, or give another name"):
        assembled(*DIGITS, resumed=checkpoint_path(first.checkpointing.folder, 10))
    assert {path.name: path.read_bytes() for path in first.checkpointing.folder.iterdir()} == before


def test_a_run_that_only_lacks_its_test_is_tested_and_not_trained(assembled):
    first = assembled(*DIGITS)
    fit(first)
    expected = evaluate(first)
    again = assembled(*DIGITS, folder="again", resumed=checkpoint_path(first.checkpointing.folder, 40))
    fit(again)
    assert len(again.trainer.optimizers) == 0
    assert (again.module.clock.t, again.checkpointing.best) == (40, first.checkpointing.best)
    assert evaluate(again) == expected


def test_state_that_an_optimizer_keeps_in_its_groups_is_resumed(assembled):
    class Counting(torch.optim.SGD):
        def __init__(self, params, lr=0.1, weight_decay=0.0):
            super().__init__(params, lr=lr, weight_decay=weight_decay)

        def step(self, closure=None):
            for group in self.param_groups:
                group["count"] = group.get("count", 0) + 1
            return super().step(closure)

    def counted(folder, point):
        assembly = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder=folder, resumed=point)
        spec = assembly.module.spec
        make = lambda: Counting([group.options() for group in spec.groups])  # noqa: E731
        object.__setattr__(spec, "optimizer", make)
        fit(assembly)
        return assembly

    first = counted("first", None)
    second = counted("second", checkpoint_path(first.checkpointing.folder, 20))
    for assembly in (first, second):
        assert [group["count"] for group in assembly.trainer.optimizers[0].param_groups] == [40, 40]


def test_best_is_not_compared_across_two_measures(assembled):
    first = assembled(*DIGITS, "task.monitor=accuracy", "task.mode=max", "trainer.checkpoint=10", "trainer.keep=0")
    fit(first)
    second = assembled(*DIGITS, folder="second", resumed=checkpoint_path(first.checkpointing.folder, 20))
    fit(second)
    assert second.checkpointing.best["value"] == second.checkpointing.best["scores"]["val/loss"]
    assert second.checkpointing.best["update"] > 20
    assert read(second.checkpointing.folder / BEST)["cadence"]["updates"] == second.checkpointing.best["update"]


def test_a_best_checkpoint_from_after_the_resumed_update_is_not_taken_for_the_best(assembled):
    first = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0")
    fit(first)
    assert first.checkpointing.best["update"] > 20
    middle = checkpoint_path(first.checkpointing.folder, 20)
    second = assembled(*DIGITS, "optimizer.lr=10.0", "resume.policy=override", folder="second", resumed=middle)
    fit(second)
    best = second.checkpointing.best
    assert best["update"] > 20
    assert read(second.checkpointing.folder / BEST)["cadence"]["updates"] == best["update"]


def test_a_run_that_died_before_its_first_checkpoint_starts_again_without_doubled_rows(assembled):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = assembled(*DIGITS, "trainer.log_every=1")
    first.module.clock.t = 0
    add, died = first.module.metric_buffer.add, RuntimeError("killed")

    def dying(t, *rest):
        if t == 7:
            raise died
        add(t, *rest)

    first.module.metric_buffer.add = dying
    with pytest.raises(RuntimeError, match="killed"):
        fit(first)
    first.module.flush(alone=True)
    first.trainer.logger.close()
    assert candidates("auto", first.folder) == []
    second = assembled(*DIGITS)
    fit(second)
    second.trainer.logger.close()
    events = EventAccumulator(str(second.folder), size_guidance={"scalars": 0}).Reload()
    assert [point.step for point in events.Scalars("train/loss")] == list(range(40))


def test_a_checkpoint_under_the_name_of_another_update_is_refused(assembled):
    run = assembled(*DIGITS, "trainer.keep=0")
    fit(run)
    other = run.folder / "checkpoints" / "update-00000024.ckpt"
    other = other.rename(checkpoint_path(other.parent, 99))
    with pytest.raises(ConfigError, match=r"has another name than the run gave it: call it update-00000024\.ckpt"):
        assembled(*DIGITS, resumed=other)


def test_a_run_says_where_it_goes_on_and_that_there_is_nothing_to_go_on_from(assembled, capsys):
    first = assembled(*DIGITS, "trainer.checkpoint=10", "trainer.keep=0", folder="first")
    fit(first)
    middle = checkpoint_path(first.checkpointing.folder, 20)
    announce(assembled(*DIGITS, folder="second", resumed=middle), [])
    assert f"resumedfrom{middle},afterupdate20" in "".join(capsys.readouterr().out.split())
    (first.folder / "config.yaml").touch()
    shutil.rmtree(first.checkpointing.folder)
    assert resume_point(ResumeSettings("auto", None, None, "linear", 0.0), first.folder) is None
    assert capsys.readouterr().err == (
        f"{first.folder} holds a run without a checkpoint: resume=auto starts it from the beginning\n"
    )


def test_another_progress_bar_is_no_change_of_a_resumed_run(capsys):
    bar = {"callbacks": {"progress": {"lines_every": 10.0}, "mine": {"a": 1}}}
    print_changes(20, bar, {"callbacks": {"mine": {"a": 2}}})
    assert capsys.readouterr().err == "resumed at update 20, from there on callbacks.mine.a: 1 → 2\n"
