"""A run that stops early is completed; a resumed run decides by what was measured and by its own settings."""

import json
import math

import pytest
from pytorch_lightning import Callback

from trainer.checkpoint.io import checkpoint_path, checkpoints_in, read
from trainer.config.settings import settings_of
from trainer.engine.early_stopping import EarlyStopping, standing
from trainer.lr import ConfigError
from trainer.run import fit, run_in

NAME = "callbacks.early_stopping"
RUN = (
    *("callbacks=early_stopping", "~callbacks.progress", f"{NAME}.patience=3", "trainer.validate=8"),
    *("data.batch_size=32", "model.hidden=[16]", "optimizer.lr=1e-9", "trainer.duration=96", "trainer.keep=0"),
)
"""Nothing improves: the best is the first validation, after update 8."""


class Stop(Callback):
    """Stops a run after 20 updates."""

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop |= trainer.global_step >= 20


def train(compose, folder, *words):
    """Train as the command does in a folder; the result."""
    run_in(folder, settings_of(compose(*RUN, *words)), [*RUN, *words], ["train.py"])
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize(
    ("values", "mode", "min_delta", "expected"),
    [
        ([3.0, 2.0, 2.0, 2.5], "min", 0.0, (2.0, 2, 2)),
        ([3.0, 2.0, 1.9, 1.8], "min", 0.1, (1.8, 4, 0)),
        ([0.5, 0.75, 0.625], "max", 0.25, (0.5, 1, 2)),
        ([0.5, 0.7, 0.65], "max", 0.1, (0.7, 2, 1)),
        ([math.nan, 2.0, math.nan, math.inf], "min", 0.0, (2.0, 2, 2)),
    ],
)
def test_a_value_is_better_where_it_passes_the_best_by_more_than_min_delta(values, mode, min_delta, expected):
    now = standing(list(enumerate(values, 1)), mode, min_delta)
    assert (now.best, now.best_at, now.waits) == expected


@pytest.mark.parametrize(("patience", "last"), [(0, 2), (1, 2), (3, 4)])
def test_the_run_ends_after_so_many_validations_without_a_better_value(patience, last):
    callback = EarlyStopping(mode="max", patience=patience)
    for t in range(1, last + 1):
        assert callback.reason is None
        callback.measured.append((t, 0.5))
    validations = "1 validation" if last == 2 else "3 validations"
    assert callback.reason == f"val/loss has not improved on 0.5 of update 1 for {validations}"


@pytest.mark.parametrize(
    "settings", [{"patience": -1}, {"patience": 1.5}, {"min_delta": -0.1}, {"min_delta": math.nan}, {"mode": "up"}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        EarlyStopping(**settings)


def test_the_direction_is_that_of_the_metric(assembled):
    run = assembled(*RUN, f"{NAME}.monitor=val/accuracy")
    (callback,) = (one for one in run.trainer.callbacks if isinstance(one, EarlyStopping))
    assert callback.mode == "max"
    with pytest.raises(ConfigError, match="EarlyStopping.mode=min with .* of which higher is better: set max"):
        assembled(*RUN, f"{NAME}.monitor=val/accuracy", f"{NAME}.mode=min")


def test_a_resumed_run_stops_where_the_whole_one_did_and_keeps_only_measurements(assembled):
    whole = assembled(*RUN, "optimizer.lr=0.1", f"{NAME}.min_delta=0.05", "trainer.duration=400", folder="whole")
    fit(whole)
    last = checkpoints_in(whole.checkpointing.folder)[-1]
    assert whole.module.clock.t < 400
    resumed = assembled(
        *(*RUN, "optimizer.lr=0.1", f"{NAME}.min_delta=0.05", "trainer.duration=400"),
        folder="resumed",
        resumed=checkpoints_in(whole.checkpointing.folder)[-2],
    )
    fit(resumed)
    assert resumed.module.clock.t == whole.module.clock.t
    states = [
        read(path)["callbacks"]["EarlyStopping"] for path in (last, checkpoints_in(resumed.checkpointing.folder)[-1])
    ]
    assert states[0] == states[1]
    assert states[0].keys() == {"monitor", "measured"}


def test_a_run_that_stopped_early_is_completed_and_says_why(compose, tmp_path, capsys, watching):
    folder = tmp_path / "run"
    result = train(compose, folder, "trainer.log_every=7")
    reason = "val/loss has not improved on"
    assert result["status"] == "completed"
    assert result["stopped_early"]["update"] == result["updates"] == 32
    assert result["stopped_early"]["reason"].startswith(reason)
    told = capsys.readouterr()
    assert told.err.count(f"update 32: early stopping: {reason}") == 1
    assert "stopped  early: " in told.out
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match=f"is completed: it stopped early at update 32, because {reason}"):
        train(compose, folder, "trainer.log_every=7", "resume=auto")
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    # another patience, under which it would not have stopped
    result = train(compose, folder, "trainer.log_every=7", "resume=auto", f"{NAME}.patience=10")
    assert result["stopped_early"]["update"] == 88
    # a longer run has another curve: it waits anew
    result = train(
        compose, folder, "resume=auto", "trainer.duration=200", "resume.policy=stretch", f"{NAME}.patience=2"
    )
    assert result["stopped_early"]["update"] == 88 + 24


def test_a_run_that_stopped_early_and_lacks_its_result_is_tested_and_not_trained(
    assembled, compose, tmp_path, watching
):
    run = assembled(*RUN)
    fit(run)
    assert run.module.clock.t == 32
    result = train(compose, tmp_path / "run", "resume=auto")
    assert (result["updates"], result["stopped_early"]["update"]) == (32, 32)
    assert set(result["test"]) == {"loss", "accuracy"}
    assert checkpoint_path(run.checkpointing.folder, 32).exists()


def test_a_run_that_another_callback_has_stopped_is_completed_too(compose, tmp_path, watching):
    words = (
        "+callbacks.stop._target_=tests.engine.test_early_stopping.Stop",
        "allow=[tests]",
        "trainer.steps_per_execution=4",
    )
    folder, plain = tmp_path / "run", [word for word in RUN if "early" not in word and "progress" not in word]
    run_in(folder, settings_of(compose(*plain, *words)), [], ["train.py"])
    result = json.loads((folder / "result.json").read_text())
    assert result["stopped_early"] == {"update": 20, "reason": "a callback has stopped it"}
    with pytest.raises(
        ConfigError, match="completed: it stopped early at update 20, because a callback has stopped it"
    ):
        run_in(folder, settings_of(compose(*plain, *words, "resume=auto")), [], ["train.py"])
