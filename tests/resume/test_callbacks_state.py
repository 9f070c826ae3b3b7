"""The state of callbacks in a checkpoint is that after all of them have acted, and a resumed run calls what is left."""

import signal

import pytest

from tests.distributed.signalling import Send
from tests.resume.planted import OF_A_RUN
from trainer.checkpoint.io import checkpoint_path, checkpoints_in, read
from trainer.distributed.launch import signals
from trainer.run import fit

pytestmark = pytest.mark.usefixtures("watching")
RUN = (
    *("data.batch_size=32", "model.hidden=[16]", "model.dropout=0.3", "trainer.checkpoint=4", "trainer.keep=0"),
    *("trainer.duration=24", "trainer.validate=8", "trainer.steps_per_execution=5", "plateau=count"),
    *("plateau.patience=0", "+callbacks.planted._target_=tests.resume.planted.Planted", "allow=[tests]"),
)


def state_of(run):
    """What the planted callback has in the newest checkpoint of a run."""
    return read(checkpoints_in(run.folder / "checkpoints")[-1])["callbacks"]["Planted"]


def stopped(assembled, hook, nth):
    """The folder of the checkpoints of a run that a signal stopped in a hook."""
    run = assembled(*RUN, folder=hook)
    run.trainer.callbacks.insert(0, Send(hook, signal.SIGTERM, nth))
    with pytest.raises(signals.Interrupted):
        fit(run)
    signals._received.clear()
    return run.checkpointing.folder


def test_a_callback_has_seen_the_same_after_a_resume_from_any_checkpoint(assembled):
    whole = assembled(*RUN, folder="whole")
    fit(whole)
    expected = state_of(whole)
    assert set(expected["counts"]) == set(OF_A_RUN)
    assert expected["counts"]["on_train_epoch_end"] == expected["counts"]["on_validation_end"] == 3
    before, within = stopped(assembled, "on_train_batch_start", 4), stopped(assembled, "on_validation_batch_end", 3)
    points = {
        "within an interval": checkpoint_path(whole.checkpointing.folder, 4),
        "between two intervals": checkpoint_path(whole.checkpointing.folder, 8),
        "before a validation": checkpoints_in(before)[-1],
        "within a validation": checkpoints_in(within)[-1],
        "the best": within / "best.ckpt",
    }
    for name, point in points.items():
        resumed = assembled(*RUN, folder=name, resumed=point)
        fit(resumed)
        assert state_of(resumed) == expected, name
        assert resumed.trainer.current_epoch == whole.trainer.current_epoch == 3
