"""A run of W&B, read back from its files, has each update once, with the planned rate to the last bit."""

import json
import struct
import sys
from pathlib import Path

import pytest
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from tests.cli.test_extras import gone
from tests.log.test_metrics_table import SMALL, killed_after, rows_of
from tests.log.test_mlflow_run import cut, trained
from trainer.lr import ConfigError
from trainer.run import fit

WANDB = (*SMALL, "logger=wandb")
BLOCK = 32768
"""The file is a log of LevelDB: records in blocks of this size."""


@pytest.fixture(autouse=True)
def _wandb():
    pytest.importorskip("wandb", reason="wandb is not installed")


def records(path: Path) -> list:
    """The records of a `.wandb` file; a record has one part or several, each in one block."""
    from wandb.proto import wandb_internal_pb2

    data, at, found, parts = path.read_bytes(), 7, [], b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


def files(folder: Path) -> list[Path]:
    import wandb

    wandb.teardown()  # its process has then written all
    return sorted((folder / "wandb").glob("offline-run-*/*.wandb"))


def history(folder: Path) -> list[dict[str, float]]:
    """The rows of the one offline run of a folder, with its step and without what W&B adds to them."""
    (path,) = files(folder)
    rows = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            assert row["_step"] == record.history.step.num
            rows.append({name: row[name] for name in row if name not in ("_runtime", "_wandb")})
    return rows


def rates(folder: Path, group: str = "decay") -> list[tuple[int, float]]:
    return [(row["_step"], row[f"lr/{group}"]) for row in history(folder)]


def planned(run, group: str = "decay") -> list[tuple[int, float]]:
    return [(t, run.module.spec.policy.lr(t, group)) for t in range(16)]


def note(run) -> dict:
    return json.loads((run.folder / "wandb/cadence.json").read_text())


def test_a_run_has_each_update_with_its_rate_time_scores_and_config(assembled):
    run = trained(assembled(*WANDB, "logger=[wandb,csv]", "logger.wandb.project=mine"))
    for group in run.module.spec.policy.groups:
        assert rates(run.folder, group) == planned(run, group)
    table = rows_of(run.folder)
    found = history(run.folder)
    assert [row["_timestamp"] for row in found] == [row["time"] for row in table]
    for name in ("train/loss", "train/grad_norm", "val/loss", "val/accuracy", "test/loss"):
        assert [row.get(name) for row in found] == [row.get(name) for row in table]
    (begun,) = (one.run for one in records(files(run.folder)[0]) if one.WhichOneof("record_type") == "run")
    assert (begun.project, begun.display_name) == ("mine", str(run.folder))
    config = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert config["data.batch_size"] == 16


@pytest.mark.parametrize(("update", "words"), [(8, ()), (4, ("optimizer.lr=0.5", "resume.policy=override"))])
def test_a_resumed_run_writes_one_with_all_updates_under_the_same_id(assembled, update, words):
    first = assembled(*WANDB)
    cut(first, 8)
    first.trainer.loggers[0].end("failed")
    assert len(history(first.folder)) == 8
    again = trained(assembled(*WANDB, *words, resumed=killed_after(first, update)))
    assert rates(again.folder) == [*planned(first)[:update], *planned(again)[update:]]
    assert len(list((again.folder / "wandb").glob("replaced-run-*"))) == 1
    assert note(first)["id"] in files(again.folder)[0].name


def test_rows_that_were_sent_stay_with_their_run_and_the_resumed_one_gets_another_id(assembled):
    first = assembled(*WANDB)
    cut(first, 8)
    first.trainer.loggers[0].end("failed")
    before, (sent,) = note(first)["id"], files(first.folder)
    sent.with_name(sent.name + ".synced").touch()
    again = trained(assembled(*WANDB, resumed=killed_after(first, 8)))
    assert note(again)["id"] != before
    assert len(files(again.folder)) == 2
    assert sent.exists()
    sent.unlink()
    assert rates(again.folder) == planned(again)


def test_a_restart_in_a_process_drops_rows(tmp_path):
    from trainer.log.wandb_run import WandB

    log = WandB(str(tmp_path))
    log.restart(0)
    log.log_updates([0, 1, 2], [1.0, 2.0, 3.0], {"lr/all": [0.1, 0.2, 0.3], "gap": [None, 1.0, None]})
    log.log_metrics({"val/loss": 0.5, "epoch": 1}, 1)
    log.log_metrics({"val/loss": 0.7}, 2)
    log.restart(2)
    log.log_updates([2], [4.0], {"lr/all": [0.4]})
    log.end("completed")
    assert history(tmp_path) == [
        {"_step": 0, "_timestamp": 1.0, "lr/all": 0.1},
        {"_step": 1, "_timestamp": 2.0, "lr/all": 0.2, "gap": 1.0, "val/loss": 0.5},
        {"_step": 2, "_timestamp": 4.0, "lr/all": 0.4},
    ]


def test_only_rank_zero_begins_a_run(tmp_path, monkeypatch):
    from trainer.log.wandb_run import WandB

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    log = WandB(str(tmp_path))
    log.restart(0)
    log.log_updates([0], [1.0], {"lr/all": [0.1]})
    log.experiment.log({"own": 1.0})
    log.end("completed")
    assert not list(tmp_path.iterdir())


def test_offline_is_the_default_and_other_modes_are_refused(assembled):
    run = assembled(*WANDB)
    assert run.resolved.settings.logger["wandb"]["mode"] == "offline"
    with pytest.raises(ConfigError, match=r"logger\.wandb\.mode='dryrun'.*offline or online"):
        assembled(*WANDB, "logger.wandb.mode=dryrun")


def test_online_without_a_key_is_refused_before_the_first_update(assembled, monkeypatch, tmp_path):
    for name, value in {"HOME": str(tmp_path), "WANDB_BASE_URL": "http://127.0.0.1:9", "NETRC": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    run = assembled(*WANDB, "logger.wandb.mode=online")
    with pytest.raises(
        ConfigError, match=r"logger\.wandb cannot begin a run: No API key .* logger\.wandb\.mode=offline"
    ):
        fit(run)
    assert run.module.clock.t == 0


def test_without_the_package_it_is_refused(assembled, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("trainer.log.wandb_run")]:
        monkeypatch.delitem(sys.modules, name)
    gone(monkeypatch, "wandb")
    with pytest.raises(
        ConfigError, match=r"logger\.wandb needs wandb, which is not installed \(extra wandb\): pip install"
    ):
        assembled(*WANDB)
