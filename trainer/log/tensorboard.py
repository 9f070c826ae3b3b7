"""The TensorBoard log: every update's values in one event, texts, and the HParams tab."""

import math
import struct
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb

from trainer.log.eventfile import EventFile, float32
from trainer.log.run_logger import RunLogger
from trainer.lr import ConfigError

Scalar = bool | int | float | str


class TensorBoard(RunLogger):
    """Writes TensorBoard event files into `folder`, on rank zero only.

    The first write creates the file. It is flushed by every write that comes `flush_seconds` or more after the
    last flush, and by `save`, `finalize` and `close`. Writing after `close` starts another file.

    Raises:
        ConfigError: `flush_seconds` is negative or not a number, or `folder` is empty.
    """

    def __init__(self, folder: str, flush_seconds: float = 5.0) -> None:
        super().__init__()
        if not flush_seconds >= 0:
            raise ConfigError(f"flush_seconds={flush_seconds} is not a time: give seconds, 0 or more")
        if not folder:
            raise ConfigError("folder='' is empty: give the folder of the TensorBoard log.")
        self.hparams: dict[str, Any] = {}
        self._folder = Path(folder)
        self._flush_seconds = flush_seconds
        self._started, self._flushed = time.monotonic(), time.monotonic()
        self._file: EventFile | None = None

    @rank_zero_only
    def log_updates(self, steps: Sequence[int], times: Sequence[float], columns: Mapping[str, Sequence[Any]]) -> None:
        """Write one event per update with the value of every column that has one.

        Args:
            steps: the n updates, each counted from 0.
            times: when each was applied, in seconds since 1970.
            columns: per tag the n values, stored as float32; None where an update has none.

        Raises:
            ValueError: the lengths differ.
        """
        file, tags = self._open(), tuple(columns)
        gaps = any(None in column for column in columns.values())
        rows = columns.values() if gaps else map(float32, columns.values())
        for step, wall_time, *values in zip(steps, times, *rows, strict=True):
            if gaps:
                known = {tag: value for tag, value in zip(tags, values) if value is not None}
                file.write_scalars(tuple(known), step, wall_time, float32(known.values()))
            else:
                file.write_scalars(tags, step, wall_time, values)
        self._flush_if_due()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one event at `step` with all `metrics` but `epoch` and `test/…`, which would be charts of a point."""
        if step is None:
            raise ValueError(f"log_metrics({list(metrics)}) has no step: pass the number of the update.")
        kept = {tag: value for tag, value in metrics.items() if tag != "epoch" and not tag.startswith("test/")}
        if kept:
            self._open().write_scalars(tuple(kept), step, time.time(), float32(kept.values()))
            self._flush_if_due()

    @rank_zero_only
    def log_text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Write a Markdown text for the Text tab."""
        self._write(text_pb(tag, markdown), step)

    @rank_zero_only
    def log_image(self, tag: str, picture: bytes, step: int = 0) -> None:
        """Write a PNG for the Images tab."""
        width, height = struct.unpack(">2I", picture[16:24])
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=picture)
        self._write(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Store `params` in `hparams`; nothing is written, `log_hparams` writes those of a run."""
        self.hparams.update(vars(params) if isinstance(params, Namespace) else params)

    @rank_zero_only
    def log_hparams(self, params: Mapping[str, Any], step: int, completed: bool = True) -> None:
        """Write the run's row of the HParams tab, named by its folder; its metrics are the last ones of the log.

        A value other than a finite number, bool or string is stored as its text. There is no experiment summary:
        TensorBoard would apply the first one to all runs of a sweep, and hide parameters that only other runs have.
        """
        plain = {name: _scalar(value) for name, value in params.items()}
        folder, here = self._folder.resolve(), Path.cwd()
        trial = folder.relative_to(here) if folder.is_relative_to(here) else folder
        self._write(hparams_pb(plain, trial_id=str(trial), start_time_secs=self._started), step)
        self._write(_session_end(completed), step)

    @rank_zero_only
    def log_layout(self, charts: Mapping[str, Sequence[str]]) -> None:
        """Write the charts of the Custom Scalars tab: by title, regular expressions of the tags in it."""
        drawn = [
            layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=list(tags)))
            for title, tags in charts.items()
        ]
        layout = layout_pb2.Layout(category=[layout_pb2.Category(title="run", chart=drawn)])
        text = TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()], tensor_shape=TensorShapeProto())
        described = custom_scalars.create_summary_metadata()
        value = Summary.Value(tag=custom_scalars.CONFIG_SUMMARY_TAG, metadata=described, tensor=text)
        self._write(Summary(value=[value]), 0)

    @rank_zero_only
    def restart(self, step: int) -> None:
        """Mark that the run continues at update `step`: TensorBoard then drops what was logged from `step` on.

        Call it before the first write of a resumed run; it applies to earlier files too.
        """
        self._open().restart(step)

    @property
    def save_dir(self) -> str:
        """The folder of the event files."""
        return str(self._folder)

    @property
    def log_dir(self) -> str:
        """The folder of the event files."""
        return str(self._folder)

    @rank_zero_only
    def save(self) -> None:
        """Flush."""
        if self._file is not None:
            self._file.flush()
            self._flushed = time.monotonic()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Flush; Lightning calls this after the fit and again after a test, so the file stays open."""
        self.save()

    @rank_zero_only
    def close(self) -> None:
        """Flush and close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def abandon(self) -> None:
        """Give the file up, because it cannot be written."""
        if self._file is not None:
            self._file.abandon()
            self._file = None

    def _open(self) -> EventFile:
        if self._file is None:
            self._file = EventFile(self._folder)
        return self._file

    def _write(self, summary: Summary, step: int) -> None:
        self._open().write(Event(wall_time=time.time(), step=step, summary=summary))
        self._flush_if_due()

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._flushed >= self._flush_seconds:
            self.save()


def _scalar(value: Any) -> Scalar:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, bool | int | str) else str(value)


def _session_end(completed: bool) -> Summary:
    status = api_pb2.STATUS_SUCCESS if completed else api_pb2.STATUS_FAILURE
    ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    described = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
    value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=described, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
