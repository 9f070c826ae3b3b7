"""A run of MLflow has each update once, with the planned rate to the last bit, however the run was cut."""

import json
import math
import os
import sys

import pytest
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from tests.cli.test_extras import gone
from tests.log.test_metrics_table import SMALL, end, killed_after
from trainer.config.run_summary import announce
from trainer.lr import ConfigError
from trainer.run import fit

MLFLOW = (*SMALL, "logger=mlflow", "trainer.checkpoint=4")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """A client for a database of the tests' own, which MLFLOW_TRACKING_URI names."""
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield MlflowClient(uri)


def trained(run):
    """The run, trained and ended as the command would."""
    announce(run, [])
    fit(run)
    end(run)
    return run


def cut(run, update: int) -> None:
    """Train up to the checkpoint at this update, and fail there."""

    def fail(*_):
        if run.module.clock.t == update:
            raise RuntimeError("cut")

    announce(run, [])
    run.module.on_train_batch_start = fail
    with pytest.raises(RuntimeError, match="cut"):
        fit(run)


def noted(run) -> str:
    return json.loads((run.folder / "mlflow.json").read_text())["run_id"]


def points(client, run, tag: str) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in client.get_metric_history(noted(run), tag)]


def planned(run, group: str = "decay", first: int = 0) -> list[tuple[int, float]]:
    return [(t, run.module.spec.policy.lr(t, group)) for t in range(first, 16)]


def test_a_run_has_each_update_with_its_rate_its_scores_and_its_config(client, assembled, tmp_path):
    run = trained(assembled(*MLFLOW, "logger=[mlflow,csv]", "logger.mlflow.experiment=first"))
    made = client.get_run(noted(run))
    assert (made.info.status, made.info.run_name) == ("FINISHED", str(tmp_path / "run"))
    assert client.get_experiment(made.info.experiment_id).name == "first"
    for group in run.module.spec.policy.groups:
        assert points(client, run, f"lr/{group}") == planned(run, group)
    assert [step for step, _ in points(client, run, "val/loss")] == [7, 15]
    assert [step for step, _ in points(client, run, "test/loss")] == [15]
    assert made.data.params["data.batch_size"] == "16"
    assert (run.folder / "metrics.csv").exists()


def test_a_resumed_run_goes_on_where_no_point_is_too_many(client, assembled):
    first = assembled(*MLFLOW)
    cut(first, 8)
    before = noted(first)
    again = trained(assembled(*MLFLOW, resumed=killed_after(first, 8)))
    assert noted(again) == before
    assert points(client, again, "lr/decay") == planned(again)
    assert client.get_run(before).info.status == "FINISHED"


@pytest.mark.parametrize(("update", "words"), [(12, ()), (4, ("optimizer.lr=0.5", "resume.policy=override"))])
def test_a_run_that_goes_back_takes_the_place_of_the_earlier_one(client, assembled, update, words):
    first = trained(assembled(*MLFLOW))
    before, losses = noted(first), points(client, first, "train/loss")
    again = trained(assembled(*MLFLOW, *words, resumed=killed_after(first, update)))
    assert noted(again) != before
    assert client.get_run(before).info.lifecycle_stage == "deleted"
    assert points(client, again, "lr/decay") == [*planned(first)[:update], *planned(again, first=update)]
    found = points(client, again, "train/loss")
    assert [step for step, _ in found] == list(range(16))
    assert found[:update] == losses[:update]
    assert words or found == losses
    assert client.get_run(noted(again)).data.params["optimizer.lr"] == ("0.5" if words else "0.003")


def test_a_copied_folder_or_a_deleted_run_begins_a_new_run(client, assembled):
    first = assembled(*MLFLOW)
    cut(first, 8)
    before = noted(first)
    note = json.loads((first.folder / "mlflow.json").read_text())
    (first.folder / "mlflow.json").write_text(json.dumps({**note, "folder": "/elsewhere"}))
    again = assembled(*MLFLOW, resumed=killed_after(first, 8))
    cut(again, 12)
    assert noted(again) != before
    assert client.get_run(before).info.lifecycle_stage == "active"
    assert points(client, again, "lr/decay") == planned(again)[8:12]
    client.delete_run(between := noted(again))
    third = trained(assembled(*MLFLOW, resumed=killed_after(again, 12)))
    assert noted(third) != between
    assert points(client, third, "lr/decay") == planned(third)[12:]


def test_tags_times_and_numbers_reach_the_store(client, tmp_path):
    from trainer.log.mlflow_run import MLflow

    log = MLflow(str(tmp_path))
    log.restart(0)
    log.log_updates([0, 1], [1.5, 2.0], {"lr/all": [0.1, 1e-300], "val/a[0]": [None, math.nan]})
    log.log_hyperparams({"late": 1})
    log.end("interrupted")
    history = client.get_metric_history(log.run_id, "lr/all")
    assert [(one.step, one.timestamp, one.value) for one in history] == [(0, 1500, 0.1), (1, 2000, 1e-300)]
    (nan,) = client.get_metric_history(log.run_id, "val/a_0_")
    assert math.isnan(nan.value)
    assert client.get_run(log.run_id).info.status == "KILLED"


@pytest.mark.parametrize(("step", "kept"), [(4, False), (5, True)])
def test_a_run_is_kept_only_above_its_last_point(client, tmp_path, step, kept):
    from trainer.log.mlflow_run import MLflow

    log = MLflow(str(tmp_path))
    log.restart(0)
    log.log_updates(range(5), [1.0] * 5, {"lr/all": [0.1] * 5})
    log.save()
    before = log.run_id
    log.restart(step)
    assert (log.run_id == before) == kept
    assert [one.step for one in client.get_metric_history(log.run_id, "lr/all")] == list(range(step))
    log.end("completed")


def test_only_rank_zero_opens_the_store(client, tmp_path, monkeypatch):
    from trainer.log.mlflow_run import MLflow

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    log = MLflow(str(tmp_path / "run"), uri=f"sqlite:///{tmp_path}/other.db")
    log.restart(0)
    log.log_updates([0], [1.0], {"lr/all": [0.1]})
    log.end("completed")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("sqlit:///x.db", r"logger\.mlflow: uri=sqlit:///x\.db cannot be a store of MLflow: .*unsupported URI"),
        (
            "mlruns",
            r"logger\.mlflow: uri=mlruns cannot be a store of MLflow: The filesystem .* give one such as sqlite",
        ),
        ("sqlite:////dev/null/x.db", r"logger\.mlflow: /dev/null cannot be a folder, because /dev/null is a file"),
    ],
)
def test_a_store_that_cannot_be_is_refused_in_one_line(client, assembled, uri, why):
    with pytest.raises(ConfigError, match=why) as told:
        assembled(*MLFLOW, f"logger.mlflow.uri={uri}")
    assert "\n" not in str(told.value)


def test_without_the_package_it_is_refused(assembled, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("trainer.log.mlflow_run")]:
        monkeypatch.delitem(sys.modules, name)
    gone(monkeypatch, "mlflow")
    with pytest.raises(
        ConfigError, match=r"logger\.mlflow needs mlflow, which is not installed \(extra mlflow\): pip install"
    ):
        assembled(*MLFLOW)


def test_a_server_that_is_gone_ends_no_run(client, assembled, monkeypatch, capsys):
    monkeypatch.setitem(os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run = assembled(*MLFLOW, "logger.mlflow.uri='http://127.0.0.1:9'")
    fit(run)
    assert run.module.clock.t == 16
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(told) == 1
    assert told[0].startswith("warning: MLflow cannot log:")
