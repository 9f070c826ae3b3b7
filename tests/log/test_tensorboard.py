"""The log is trusted because TensorBoard's own readers, not ours, find in it exactly what was written."""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.data import DataLoader

from trainer.log.eventfile import EventFile, ScalarEncoder, masked_crc
from trainer.log.tensorboard import TensorBoard
from trainer.lr import ConfigError

EVERYTHING = dict.fromkeys(("scalars", "tensors"), 0)


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance=EVERYTHING).Reload()


def points(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in read(folder).Scalars(tag)]


def float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[TensorBoard]:
    log = TensorBoard(str(tmp_path), flush_seconds=1e9)
    yield log
    log.close()


def test_every_value_of_a_thousand_updates_comes_back_as_its_float32_at_its_step(log, tmp_path):
    steps = range(1000)
    times = [1.7e9 + step / 7 for step in steps]
    columns = {f"tag/{i}": [math.sin(step * (i + 1)) * 10.0 ** (i - 4) for step in steps] for i in range(8)}
    for start in range(0, 1000, 100):
        block = slice(start, start + 100)
        log.log_updates(steps[block], times[block], {tag: values[block] for tag, values in columns.items()})
    log.save()
    events = read(tmp_path)
    assert sorted(events.Tags()["scalars"]) == sorted(columns)
    for tag, values in columns.items():
        expected = [(times[step], step, float32(values[step])) for step in steps]
        assert [(point.wall_time, point.step, point.value) for point in events.Scalars(tag)] == expected


def test_one_update_is_one_event(log, tmp_path):
    log.log_updates([3], [1.0], {"a": [1.0], "b": [2.0]})
    log.save()
    (path,) = tmp_path.iterdir()
    first, second = map(Event.FromString, records(path))
    assert first.file_version == "brain.Event:2"
    assert [value.tag for value in second.summary.value] == ["a", "b"]


def records(path: Path) -> Iterator[bytes]:
    reader = pywrap_tensorflow.PyRecordReader_New(str(path))
    while True:
        try:
            reader.GetNext()
        except pywrap_tensorflow.errors.OutOfRangeError:
            return
        yield reader.record()


@pytest.mark.parametrize("step", [0, 1, 127, 128, 300, 2**31, 2**40])
@pytest.mark.parametrize("tags", [("a",), ("loss", "lr/weights"), ("Verlust/µ", "x" * 127, "y" * 128, "z" * 20000)])
def test_the_hand_made_bytes_parse_to_the_event_that_protobuf_would_build(tags, step):
    values = [float32(0.1 * (i + 1)) for i in range(len(tags))]
    scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in zip(tags, values)]
    built = Event(wall_time=1.7e9, step=step, summary=Summary(value=scalars))
    assert Event.FromString(ScalarEncoder(tags)(step, 1.7e9, values)) == built


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0, 3.0]])
def test_an_event_needs_one_value_per_tag(values):
    with pytest.raises(ValueError):
        ScalarEncoder(("a", "b"))(0, 0.0, values)


def test_columns_of_unequal_length_are_refused(log):
    with pytest.raises(ValueError):
        log.log_updates([0, 1], [0.0, 1.0], {"a": [1.0, 2.0], "b": [1.0]})


def test_a_negative_step_is_refused(log):
    for write in (lambda: log.log_metrics({"a": 1.0}, -1), lambda: log.restart(-1)):
        with pytest.raises(ValueError, match="-1 is negative"):
            write()


@pytest.mark.parametrize("data", [b"", b"123456789", bytes(range(256)) * 9])
def test_the_checksum_is_the_one_of_tensorboards_own_writer(data):
    assert masked_crc(data) == pywrap_tensorflow.masked_crc32c(data)


def test_nan_infinity_and_what_float32_cannot_hold_are_written_as_such(log, tmp_path):
    log.log_updates(range(5), [0.0] * 5, {"x": [math.nan, math.inf, -math.inf, 1e300, -1e300]})
    log.log_metrics({"y": torch.tensor(math.nan)}, 0)
    log.save()
    first, *rest = [value for _, value in points(tmp_path, "x")]
    assert math.isnan(first)
    assert rest == [math.inf, -math.inf, math.inf, -math.inf]
    assert math.isnan(points(tmp_path, "y")[0][1])


def test_after_a_restart_every_step_is_read_once_with_its_latest_value(tmp_path):
    for value, resumed, steps in ((1.0, None, range(11)), (2.0, 6, range(6, 13))):
        log = TensorBoard(str(tmp_path))
        if resumed is not None:
            log.restart(resumed)
        log.log_updates(steps, [0.0] * len(steps), {"loss": [value] * len(steps)})
        log.close()
    assert points(tmp_path, "loss") == [(step, 1.0 if step < 6 else 2.0) for step in range(13)]


def test_a_record_torn_by_a_kill_hides_nothing_but_itself(tmp_path):
    first = TensorBoard(str(tmp_path))
    first.log_updates(range(4), [0.0] * 4, {"loss": [1.0] * 4})
    first.close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    second = TensorBoard(str(tmp_path))
    second.log_updates(range(4, 6), [0.0] * 2, {"loss": [2.0] * 2})
    second.close()
    assert points(tmp_path, "loss") == [(0, 1.0), (1, 1.0), (2, 1.0), (4, 2.0), (5, 2.0)]


def test_files_opened_one_after_the_other_are_read_in_that_order(tmp_path):
    paths = []
    for _ in range(20):
        file = EventFile(tmp_path)
        file.close()
        paths.append(file.path)
    assert paths == sorted(set(paths))


def test_lightnings_epoch_is_left_out_and_an_event_of_nothing_else_is_not_written(log, tmp_path):
    log.log_metrics({"val/loss": 0.5, "epoch": 3}, 7)
    log.log_metrics({"epoch": 3}, 7)
    log.save()
    assert read(tmp_path).Tags()["scalars"] == ["val/loss"]
    assert len(list(records(next(tmp_path.iterdir())))) == 2


def test_metrics_without_a_step_are_refused(log):
    with pytest.raises(ValueError, match="has no step"):
        log.log_metrics({"val/loss": 0.5})


def test_a_text_comes_back(log, tmp_path):
    log.log_text("config", "| a | b |\n|---|---|\n| µ | 2 |", step=4)
    log.save()
    events = read(tmp_path)
    (text,) = events.Tensors("config")
    assert text.step == 4
    assert text.tensor_proto.string_val[0].decode() == "| a | b |\n|---|---|\n| µ | 2 |"
    assert events.SummaryMetadata("config").plugin_data.plugin_name == "text"


def hparams_table(folder: Path) -> dict[str, tuple[dict, dict]]:
    """What the HParams tab shows: per run the hyper-parameters and the metrics."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(runs, str(folder))))
    request_context, tags = RequestContext(), context.hparams_metadata(RequestContext(), "0")
    shown = context.experiment_from_metadata(request_context, "0", True, tags, [])
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=[api_pb2.ColParams(hparam=info.name) for info in shown.hparam_infos]
        + [api_pb2.ColParams(metric=info.name) for info in shown.metric_infos],
        slice_size=100,
        include_metrics=True,
    )
    groups = list_session_groups.Handler(request_context, context, "0", request).run().session_groups
    columns = {info.name for info in shown.hparam_infos}
    table = {}
    for group in groups:
        params = {name: getattr(value, value.WhichOneof("kind")) for name, value in group.hparams.items()}
        assert set(params) <= columns
        table[group.sessions[0].name] = params, {m.name.tag: (m.training_step, m.value) for m in group.metric_values}
    return table


def test_the_hparams_tab_shows_every_run_of_a_sweep_with_its_own_parameters_and_final_metrics(tmp_path):
    params = {
        "cosine": {"lr": 0.1, "nesterov": True, "betas": [0.9, 0.99]},
        "wsd": {"lr": 1, "decay": "10%", "cap": None, "clip": math.inf},
    }
    for run, score in (("cosine", 0.5), ("wsd", 0.25)):
        log = TensorBoard(str(tmp_path / run))
        log.log_metrics({"lr/all": 0.3}, 0)
        log.log_metrics({"val/accuracy": score}, 99)
        log.log_hparams(params[run], step=99)
        log.close()
    table = hparams_table(tmp_path)
    assert table["cosine"][0] == {"lr": 0.1, "nesterov": True, "betas": "[0.9, 0.99]"}
    assert table["wsd"][0] == {"lr": 1.0, "decay": "10%", "cap": "None", "clip": "inf"}
    assert table["cosine"][1]["val/accuracy"] == (99, 0.5)
    assert table["wsd"][1]["val/accuracy"] == (99, 0.25)
    assert not any("hp_metric" in metrics for _, metrics in table.values())


def test_a_row_of_the_hparams_tab_is_named_by_the_folder_of_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = TensorBoard("sweep/3")
    log.log_hparams({"lr": 0.1}, step=9)
    log.close()
    (path,) = Path("sweep/3").glob("events.*")
    names = [
        HParamsPluginData.FromString(value.metadata.plugin_data.content).session_start_info.group_name
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    ]
    assert "sweep/3" in names


def test_the_custom_scalars_tab_has_the_charts_of_the_layout(tmp_path):
    log = TensorBoard(str(tmp_path))
    log.log_layout({"learning rate": ["^lr/"], "loss": ["^(train|val)/loss$"]})
    log.close()
    runs = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    context = TBContext(
        data_provider=MultiplexerDataProvider(runs, str(tmp_path)), multiplexer=runs, logdir=str(tmp_path)
    )
    plugin = CustomScalarsPlugin(context)
    layout = json.loads(plugin.layout_impl(RequestContext(), "0"))
    (category,) = layout["category"]
    assert [chart["title"] for chart in category["chart"]] == ["learning rate", "loss"]
    assert category["chart"][0]["multiline"]["tag"] == ["^lr/"]


def test_a_rank_above_zero_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    log = TensorBoard(str(tmp_path / "run"))
    log.restart(3)
    log.log_updates([3], [0.0], {"loss": [1.0]})
    log.log_metrics({"loss": 1.0}, 3)
    log.log_text("config", "text")
    log.log_hparams({"lr": 1.0}, 3)
    log.save()
    log.finalize("success")
    log.close()
    assert not (tmp_path / "run").exists()


def test_making_a_log_and_keeping_hyper_parameters_creates_no_file(log, tmp_path):
    log.log_hyperparams({"lr": 0.1})
    log.save()
    log.finalize("success")
    assert log.hparams == {"lr": 0.1}
    assert list(tmp_path.iterdir()) == []


def test_writing_goes_on_after_finalize_in_the_same_file_and_after_close_in_another(log, tmp_path):
    log.log_metrics({"a": 1.0}, 0)
    log.finalize("success")
    log.log_metrics({"a": 2.0}, 1)
    log.finalize("success")
    assert len(list(tmp_path.iterdir())) == 1
    log.close()
    log.close()
    log.log_metrics({"a": 3.0}, 2)
    log.save()
    assert len(list(tmp_path.iterdir())) == 2
    assert points(tmp_path, "a") == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_a_write_reaches_the_disk_once_the_flush_time_is_over(tmp_path):
    prompt, patient = (TensorBoard(str(tmp_path / name), wait) for name, wait in (("prompt", 0.0), ("patient", 1e9)))
    for log in (prompt, patient):
        log.log_metrics({"a": 1.0}, 0)
    assert points(tmp_path / "prompt", "a") == [(0, 1.0)]
    assert read(tmp_path / "patient").Tags()["scalars"] == []
    patient.close()
    assert points(tmp_path / "patient", "a") == [(0, 1.0)]


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
def test_a_flush_time_that_is_none_is_refused(seconds):
    with pytest.raises(ConfigError, match="flush_seconds"):
        TensorBoard("runs", seconds)


def test_a_log_without_a_folder_is_refused():
    with pytest.raises(ConfigError, match="folder"):
        TensorBoard("")


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.save_hyperparameters({"slope": 2})

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        loss = (self.weight * batch - 2 * batch).square().mean()
        self.log("train/loss", loss)
        return loss

    def test_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("test/loss", (self.weight * batch - 2 * batch).square().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_logs_a_fit_through_it_and_no_chart_of_a_test(log, tmp_path):
    data = DataLoader(torch.ones(6, 1), batch_size=2)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(accelerator="cpu", max_epochs=2, logger=log, log_every_n_steps=1, **quiet)
    line = Line()
    trainer.fit(line, data)
    trainer.test(line, data, verbose=False)
    assert trainer.log_dir == log.save_dir == log.log_dir == str(tmp_path)
    assert sorted(read(tmp_path).Tags()["scalars"]) == ["train/loss"]  # a test would be one point
    assert [step for step, _ in points(tmp_path, "train/loss")] == list(range(6))
    assert points(tmp_path, "train/loss")[0][1] == 4.0
    assert log.hparams == {"slope": 2}
