"""A log must be read as TensorBoard reads it."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.log.eventfile import EventFile, float32
from trainer.log.scalars import scalars


def test_a_log_is_read_as_tensorboard_reads_it_also_after_a_resume_and_half_written(tmp_path):
    first = EventFile(tmp_path)
    for t in range(10):
        first.write_scalars(("train/loss",), t, 0.0, float32([t]))
    first.close()
    second = EventFile(tmp_path)
    second.restart(6)
    for t in range(6, 12):
        second.write_scalars(("train/loss",), t, 0.0, float32([-t]))
    second.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload().Scalars("train/loss")
    read = scalars(tmp_path, ["train/"])["train/loss"]
    assert read == [(one.step, one.value) for one in events]
    assert len(read) == 12
    with second.path.open("r+b") as file:
        file.truncate(second.path.stat().st_size - 7)
    assert scalars(tmp_path, ["train/"])["train/loss"] == read[:-1]
