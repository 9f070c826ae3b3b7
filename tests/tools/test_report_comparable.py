"""A report compares what can be compared: the same data, split, task and loss, and curves without a change."""

import json
import shlex

import pytest

from tests.tools.runs_on_disk import write_run
from trainer.tools.report import command as report
from trainer.tools.report.comparable import comparable
from trainer.tools.report.runs import find_runs
from trainer.tools.report.study import Study, format_command
from trainer.tools.runs import command as runs

DIGITS = {"_target_": "data.digits.Digits", "batch_size": 32, "folds": None}
CHANGES = [{"policy": "stretch", "update": 20}]


def resumed(folder, changes):
    planned = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps(planned | {"changes": changes}))


def test_a_run_that_a_resume_has_changed_is_a_configuration_of_its_own(tmp_path, capsys):
    for seed in range(2):
        for number, (changes, loss) in enumerate((([], 0.614), (CHANGES, 0.591))):
            words = ["optimizer.lr=0.1", f"seed={seed}", *(["resume.policy=stretch"] if changes else [])]
            resumed(write_run(tmp_path / f"{number}{seed}", words, {"val/loss": loss + seed / 100}), changes)
    study = Study(find_runs(tmp_path), "val/loss")
    assert [len(one.runs) for one in study.configurations] == [2, 2]
    assert "resumed" in study.settings
    best = study.configurations[0]
    assert best.values == (("resumed", "stretch at update 20"),)
    line = format_command(best.runs[0])
    assert "# was resumed: stretch at update 20. This command trains another run" in line
    assert shlex.split(line, comments=True)[:2] == ["cadence", "train"]
    assert "#" not in format_command(study.configurations[1].runs[0])
    report.main([str(tmp_path)])
    assert "was resumed: stretch at update 20" in capsys.readouterr().out


def test_a_run_with_a_setting_that_a_resume_has_changed_is_not_pooled_with_fresh_ones(tmp_path):
    edits = [{"update": 20, "changed": {"optimizer.weight_decay": [0.01, 1.0]}}]
    for name in ("fresh", "edited"):
        folder = write_run(tmp_path / name, ["optimizer.weight_decay=1.0"], {"val/loss": 0.6})
        planned = json.loads((folder / "plan.json").read_text())
        (folder / "plan.json").write_text(json.dumps(planned | {"edits": edits if name == "edited" else []}))
    study = Study(find_runs(tmp_path), "val/loss")
    assert {one.values for one in study.configurations} == {
        (("resumed", "no"),),
        (("resumed", "optimizer.weight_decay 0.01 → 1.0 at update 20"),),
    }


def test_what_a_foreign_plan_says_of_a_resume_is_one_line_of_a_command(tmp_path):
    folder = write_run(tmp_path / "run", [], {"val/loss": 0.6})
    said = "stretch\nrm -rf /tmp/x"
    for changes in ([{"policy": said, "update": 1}], [{"policy": 1}, 5]):
        for edits in ([{"update": said, "changed": {said: [said, 1]}}], [{"changed": [said]}, {"changed": {"a": 1}}]):
            planned = {"changes": changes, "edits": edits}
            (folder / "plan.json").write_text(json.dumps(planned))
            (run,) = find_runs(tmp_path)
            assert "\n" not in format_command(run)


def test_runs_without_a_resume_are_told_apart_by_nothing_new(tmp_path):
    for seed in range(3):
        write_run(tmp_path / f"{seed}", [f"seed={seed}"], {"val/loss": 1.0})
    assert Study(find_runs(tmp_path), "val/loss").varied == ["seed"]


@pytest.mark.parametrize(
    ("other", "metric", "apart"),
    [
        ({"data": {**DIGITS, "_target_": "data.synthetic.Synthetic"}}, "val/accuracy", True),
        ({"data": {**DIGITS, "path": "elsewhere"}}, "val/accuracy", True),
        ({"data": {**DIGITS, "folds": 5}}, "val/accuracy", True),
        ({"data": {**DIGITS, "val": {"_target_": "mine.Rows"}}}, "val/accuracy", True),
        ({"data": {**DIGITS, "batch_size": 64, "augment": {"x": 1}, "fold": 2, "label_noise": 0.1}}, "val/loss", False),
        ({"data": DIGITS, "task": {"loss": {"label_smoothing": 0.1}}}, "val/loss", True),
        ({"data": DIGITS, "task": {"loss": {"label_smoothing": 0.1}}}, "val/accuracy", False),
        ({"data": DIGITS, "task": {"_target_": "other.Task"}}, "val/accuracy", True),
        ({"data": DIGITS, "task": {"metrics": {"accuracy": {"average": "macro"}}}}, "val/accuracy", True),
        ({"data": DIGITS, "task": {"metrics": {"accuracy": {"average": "macro"}}}}, "val/loss", False),
        ({"data": DIGITS, "trainer": {"lightning": {"limit_val_batches": 2}}}, "val/loss", True),
        ({"data": DIGITS, "trainer": {"quiet": True, "profile": True}}, "val/loss", False),
        ({"data": {**DIGITS, "tokenizer": "gpt2"}}, "val/perplexity", True),
    ],
)
def test_runs_of_another_task_are_left_out(tmp_path, other, metric, apart):
    scores = {"val/loss": 1.0, "val/accuracy": 0.5, "val/perplexity": 2.7}
    for number, config in enumerate([{"data": DIGITS}, {"data": DIGITS}, other]):
        write_run(tmp_path / f"{number}", [], scores, **config)
    runs = find_runs(tmp_path)
    kept, left = comparable(runs, metric)
    assert len(kept) == 3 - apart
    study = Study(runs, metric)
    assert [run.name for run in study.left_out] == ["2"] * apart
    if apart:
        assert study.why_left_out(runs[2]).startswith("of another task (")
        assert list(left) == [2]


def test_a_rollback_makes_no_other_configuration_and_is_noted(tmp_path, capsys):
    back = [{"policy": "rollback", "update": 20, "factor": 0.5, "rewarm": 10, "failed": 23}]
    for seed in range(3):
        folder = write_run(tmp_path / str(seed), ["optimizer.lr=0.1", f"seed={seed}"], {"val/loss": 0.6 + seed / 100})
        resumed(folder, back if seed == 0 else [])
    study = Study(find_runs(tmp_path), "val/loss")
    (one,) = study.configurations
    assert (one.repeats.n, one.values) == (3, ())
    assert "#" not in format_command(one.runs[0])
    report.main([str(tmp_path)])
    told = capsys.readouterr().out
    assert "1 run has diverged, and the guard has rolled back: 0 to update 20, rate × 0.5." in told
    runs.main(["show", str(tmp_path / "0")])
    assert "\nrollbacks to update 20, rate × 0.5\n" in capsys.readouterr().out
