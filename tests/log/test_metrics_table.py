"""The table has each update once and in order, with the planned rate to the last bit, however its run was cut."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from trainer.checkpoint.io import checkpoints_in
from trainer.config.run_summary import write_result
from trainer.log.failsafe import failsafe
from trainer.log.table import CSV
from trainer.lr import ConfigError
from trainer.run import evaluate, fit

SMALL = (
    *("data=synthetic", "data.samples=128", "data.val_samples=32", "data.test_samples=48", "data.batch_size=16"),
    *("model.hidden=[8]", "trainer.duration=16", "trainer.validate=8", "trainer.log_every=3", "warmup=none"),
    *("trainer.steps_per_execution=4", "trainer.checkpoint=4", "trainer.keep=0"),
)


def rows_of(folder: Path) -> list[dict[str, float]]:
    """The cells of each row that are not empty."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{tag: float(cell) for tag, cell in row.items() if cell} for row in csv.DictReader(file, strict=True)]


def values_of(folder: Path) -> list[dict[str, float]]:
    """What was logged, without what two runs measure differently."""
    left_out = ("time", "train/samples_per_second")
    return [{tag: value for tag, value in row.items() if tag not in left_out} for row in rows_of(folder)]


def killed_after(run, update: int) -> Path:
    """The checkpoint at this update; those behind it are gone, as if a kill had prevented them."""
    *_, newest = (path for path in checkpoints_in(run.checkpointing.folder) if int(path.stem[-8:]) <= update)
    for path in checkpoints_in(run.checkpointing.folder):
        if path > newest:
            path.unlink()
    return newest


def end(run) -> None:
    write_result(run, {"status": "completed", "test": evaluate(run)}, 1.0)


def test_a_run_has_each_update_with_its_rate_and_the_scores_in_the_row_before_them(assembled):
    run = assembled(*SMALL, "logger=[tensorboard,csv]")
    assert [type(logger).__name__ for logger in run.trainer.loggers] == ["TensorBoard", "CSV"]
    fit(run)
    end(run)
    rows, policy = rows_of(run.folder), run.module.spec.policy
    assert [row["step"] for row in rows] == list(range(16))
    for group in policy.groups:
        assert [row[f"lr/{group}"] for row in rows] == [policy.lr(t, group) for t in range(16)]
    assert [row["step"] for row in rows if "val/loss" in row] == [7, 15]
    assert [row["step"] for row in rows if "test/loss" in row] == [15]
    assert all(before["time"] <= after["time"] for before, after in zip(rows, rows[1:]))
    assert list(run.folder.glob("events.out.tfevents*"))


@pytest.mark.parametrize("update", [4, 8, 12])
def test_a_resumed_run_replaces_the_rows_from_its_point_on(assembled, update):
    whole = assembled(*SMALL, "logger=csv", folder="whole")
    fit(whole)
    end(whole)
    first = assembled(*SMALL, "logger=csv")
    fit(first)
    end(first)
    again = assembled(
        *SMALL, "logger=csv", "optimizer.lr=0.5", "resume.policy=override", resumed=killed_after(first, update)
    )
    fit(again)
    end(again)
    changed = rows_of(again.folder)
    assert values_of(again.folder)[:update] == values_of(whole.folder)[:update]
    assert [row["step"] for row in changed] == list(range(16))
    assert [row["lr/decay"] for row in changed[update:]] == [
        again.module.spec.policy.lr(t, "decay") for t in range(update, 16)
    ]


def test_a_run_resumed_after_a_kill_has_the_table_of_a_whole_one(assembled):
    whole, first = assembled(*SMALL, "logger=csv", folder="whole"), assembled(*SMALL, "logger=csv")
    for run in (whole, first):
        fit(run)
    end(whole)
    table = first.folder / "metrics.csv"
    table.write_bytes(table.read_bytes()[:-9])
    again = assembled(*SMALL, "logger=csv", resumed=killed_after(first, 12))
    fit(again)
    end(again)
    assert values_of(again.folder) == values_of(whole.folder)


ACTS = st.one_of(
    st.tuples(st.just("updates"), st.integers(1, 4), st.floats()),
    st.tuples(st.just("metrics"), st.integers(0, 12), st.sampled_from(["val/a", "b,c", 'd"e', "f\ng"]), st.floats()),
    st.tuples(st.just("restart"), st.integers(0, 12)),
    st.tuples(st.sampled_from(["save", "flush", "kill"])),
)


@given(st.lists(ACTS, max_size=30))
def test_the_file_is_what_a_dictionary_of_rows_would_be(tmp_path_factory, acts):
    folder = tmp_path_factory.mktemp("table")
    log, rows, newest = CSV(str(folder), 1e9), {}, 0
    for act in acts:
        match act:
            case "updates", count, value:
                steps = range(newest, newest + count)
                log.log_updates(steps, [1.0] * count, {"lr/all": [value] * count, "gap": [None] * count})
                for step in steps:
                    rows.setdefault(step, {})["lr/all"] = value
                newest += count
            case "metrics", step, tag, value:
                log.log_metrics({tag: value, "epoch": 1}, step)
                rows.setdefault(step, {})[tag] = value
            case "restart", step:
                log.restart(step)
                rows, newest = {t: row for t, row in rows.items() if t < step}, min(newest, step)
            case ("flush",):
                log._flush_seconds = 0.0
                log._flush_if_due()
                log._flush_seconds = 1e9
            case ("save",):
                log.save()
            case ("kill",):
                log.save()
                log = CSV(str(folder), 1e9)
    log.end("completed")
    found = rows_of(folder) if (folder / "metrics.csv").exists() else []
    assert [row.pop("step") for row in found] == sorted(rows)
    assert all(row.pop("time") > 0 for row in found)
    bits = [{tag: np.float64(value).tobytes() for tag, value in row.items() if not math.isnan(value)} for row in found]
    kept = [rows[step] for step in sorted(rows)]
    assert bits == [{tag: np.float64(v).tobytes() for tag, v in row.items() if not math.isnan(v)} for row in kept]
    assert [set(row) for row in found] == [set(row) for row in kept]


def test_rows_that_are_not_saved_are_complete_in_the_file_but_the_last(tmp_path):
    log = CSV(str(tmp_path), 0.0)
    log.log_updates([0, 1, 2], [1.0, 2.0, 3.0], {"lr/all": [0.1, 0.2, 0.3]})
    assert rows_of(tmp_path) == [{"step": 0, "time": 1.0, "lr/all": 0.1}, {"step": 1, "time": 2.0, "lr/all": 0.2}]
    log.log_metrics({"val/loss": torch.tensor(0.5)}, 2)
    log.save()
    assert rows_of(tmp_path)[2] == {"step": 2, "time": 3.0, "lr/all": 0.3, "val/loss": 0.5}


@pytest.mark.parametrize("again", [False, True])
def test_a_restart_drops_the_row_of_its_update_and_those_behind(tmp_path, again):
    log = CSV(str(tmp_path))
    log.log_updates(range(5), [1.0] * 5, {"lr/all": [0.1] * 5})
    log.save()
    log = CSV(str(tmp_path)) if again else log
    log.restart(3)
    assert [row["step"] for row in rows_of(tmp_path)] == [0, 1, 2]


def test_only_rank_zero_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    log = CSV(str(tmp_path))
    log.restart(0)
    log.log_updates([0], [1.0], {"lr/all": [0.1]})
    log.end("completed")
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_removed_is_told_and_not_begun_anew(tmp_path, capsys):
    log = failsafe(CSV(str(tmp_path)))
    for step in range(2):
        log.log_metrics({"a": 1.0}, step)
        log.save()
        (tmp_path / "metrics.csv").unlink(missing_ok=True)
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("warning: CSV cannot log: [Errno 2] No such file")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_a_table_is_refused(tmp_path, assembled):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"logger\.csv: .*file is a file: give another folder"):
        assembled(*SMALL, "logger=csv", f"+logger.csv.folder={tmp_path}/file/x", "logger.csv._partial_=false")
    with pytest.raises(ConfigError, match=r"logger\.csv: flush_seconds=-1 is not a time"):
        assembled(*SMALL, "logger=csv", "logger.csv.flush_seconds=-1")
    (tmp_path / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match=r"metrics\.csv is no log of a run: move it"):
        CSV(str(tmp_path)).restart(0)
