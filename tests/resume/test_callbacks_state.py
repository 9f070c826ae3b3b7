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


@pytest.fixture
def whole(assembled):
    run = assembled(*RUN, folder="whole")
    fit(run)
    return run


def test_a_callback_has_seen_the_same_after_a_resume_from_any_checkpoint(assembled, whole):
    expected = state_of(whole)
    assert set(expected["counts"]) == set(OF_A_RUN)
    assert expected["counts"]["on_train_epoch_end"] == expected["counts"]["on_validation_end"] == 3
    for update in (4, 8, 20):
        resumed = assembled(*RUN, folder=str(update), resumed=checkpoint_path(whole.folder / "checkpoints", update))
        fit(resumed)
        assert state_of(resumed) == expected, update
        assert resumed.trainer.current_epoch == whole.trainer.current_epoch == 3


def test_the_best_checkpoint_and_a_run_stopped_before_or_in_a_validation_go_on_in_the_same_way(assembled, whole):
    expected = state_of(whole)
    for hook, nth in (("on_train_batch_start", 4), ("on_validation_batch_end", 3)):
        first = assembled(*RUN, folder=hook)
        first.trainer.callbacks.insert(0, Send(hook, signal.SIGTERM, nth))
        with pytest.raises(signals.Interrupted):
            fit(first)
        signals._received.clear()
        points = [checkpoints_in(first.checkpointing.folder)[-1], first.checkpointing.folder / "best.ckpt"]
        for point in points[: 1 + (nth == 3)]:
            resumed = assembled(*RUN, folder=f"{hook}-{point.stem}", resumed=point)
            fit(resumed)
            assert state_of(resumed) == expected, (hook, point.stem)
