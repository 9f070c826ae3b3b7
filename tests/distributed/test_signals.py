"""A signal stops a run between two blocks, or in its validation, and what is resumed ends with the same bits."""

import contextlib
import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.distributed.signalling import Send
from trainer.checkpoint.io import BEST, checkpoints_in, read
from trainer.distributed.launch import signals
from trainer.resume.resume_point import candidates
from trainer.run import evaluate, fit

RUN = (
    *("data.batch_size=32", "data.eval_batch_size=40", "model.hidden=[16]", "model.dropout=0.3", "schedule=cosine"),
    *("trainer.duration=24", "trainer.validate=8", "trainer.steps_per_execution=3", "trainer.log_every=1"),
    *("average=ema", "average.warmup=true"),
)


pytestmark = pytest.mark.usefixtures("watching")


def rates(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(p.step, p.value) for p in events.Scalars(tag)] for tag in ("lr/decay", "val/loss")}


def ending(assembly):
    assembly.trainer.logger.close()
    return dict(assembly.module.state_dict()), assembly.checkpointing.best, rates(assembly.folder)


@pytest.fixture
def whole(assembled):
    assembly = assembled(*RUN, folder="whole")
    fit(assembly)
    return ending(assembly)


MOMENTS = [
    *[("on_train_batch_start", nth) for nth in (2, 3, 4, 9)],  # the third block is the last of its leg
    *[("on_validation_start", nth) for nth in (2,)],
    *[("on_validation_batch_end", nth) for nth in (1, 4, 5, 14)],  # the fifth is the last of its validation
    *[("on_validation_end", nth) for nth in (1,)],
]


def test_a_run_stopped_at_any_moment_and_resumed_ends_with_the_same_bits(assembled, whole):
    due = 0
    for number, (hook, nth) in enumerate(MOMENTS):
        signum = signals.SIGNALS[number % len(signals.SIGNALS)]
        first = assembled(*RUN, folder=f"{hook}-{nth}")
        first.trainer.callbacks.insert(0, Send(hook, signum, nth))
        with pytest.raises(signals.Interrupted) as stopped:
            fit(first)
        first.trainer.logger.close()
        assert stopped.value.code == 128 + signum
        signals._received.clear()
        point = candidates("auto", first.folder)[0]
        saved = read(point)
        assert saved["cadence"]["updates"] == stopped.value.update == first.module.clock.t
        due += first.checkpointing.validation_due(saved)
        second = assembled(*RUN, folder=first.folder.name, resumed=point)
        fit(second)
        state, best, log = ending(second)
        assert all(torch.equal(state[name], whole[0][name]) for name in whole[0]), (hook, nth)
        assert best == whole[1]
        assert log == whole[2]
        assert read(second.folder / "checkpoints" / BEST)["cadence"]["updates"] == best["update"]
        assert not second.checkpointing.validation_due(read(checkpoints_in(second.folder / "checkpoints")[-1]))
    assert due == 6


def test_what_is_stopped_again_and_again_loses_nothing(assembled, whole):
    point, starts, done = None, 0, False
    while not done:
        assembly = assembled(*RUN, folder="often", resumed=point)
        starts += 1
        hook = "on_validation_batch_end" if starts in (4, 5) else "on_train_batch_start"
        assembly.trainer.callbacks.insert(0, Send(hook, signal.SIGTERM))
        try:
            fit(assembly)
            done = True
        except signals.Interrupted:
            assembly.trainer.logger.close()
            signals._received.clear()
            point = candidates("auto", assembly.folder)[0]
    state, best, log = ending(assembly)
    assert starts == 12  # nine blocks, two of the owed validation, and the last validation
    assert all(torch.equal(state[name], whole[0][name]) for name in whole[0])
    assert (best, log) == whole[1:]


def test_a_signal_in_the_last_batch_of_the_last_validation_lets_the_run_finish(assembled, whole):
    assembly = assembled(*RUN)
    assembly.trainer.callbacks.insert(0, Send("on_validation_batch_end", signal.SIGUSR1, 15))
    fit(assembly)
    assert ending(assembly)[1:] == whole[1:]


class Clock:
    """A time limit that is over at the question of this number, from 1."""

    finite = True

    def __init__(self, nth):
        self.left = nth

    def is_up(self):
        self.left -= 1
        return self.left <= 0

    def expect_save(self, size):
        pass

    saving = contextlib.nullcontext


@pytest.mark.parametrize("nth", [1, 3, 10])
def test_a_run_whose_time_is_up_says_so_and_goes_on_to_the_same_bits(assembled, whole, nth):
    first = assembled(*RUN)
    first.checkpointing.stop_signal.limit = Clock(nth)
    with pytest.raises(signals.Interrupted, match=r"interrupted by trainer\.max_time") as interrupted:
        fit(first)
    first.trainer.logger.close()
    assert interrupted.value.code == 142
    assert first.checkpointing.stopped_by == signals.TIME_IS_UP
    found = checkpoints_in(first.folder / "checkpoints")
    assert bool(found) == (nth > 1)
    second = assembled(*RUN, resumed=found[-1] if found else None)
    fit(second)
    state, best, log = ending(second)
    assert all(torch.equal(state[name], whole[0][name]) for name in whole[0])
    assert (best, log) == whole[1:]


def test_a_test_that_the_time_is_too_short_for_is_repeated(assembled):
    assembly = assembled(*RUN)
    fit(assembly)
    expected = evaluate(assembly)
    assembly.checkpointing.stop_signal.limit = Clock(2)
    with pytest.raises(signals.Interrupted, match="max_time at update 24"):
        evaluate(assembly)
    assembly.trainer.logger.close()
    again = assembled(*RUN, resumed=checkpoints_in(assembly.folder / "checkpoints")[-1])
    fit(again)
    assert evaluate(again) == expected


def test_a_signal_in_the_test_lets_it_finish(assembled):
    assembly = assembled(*RUN)
    fit(assembly)
    expected = evaluate(assembly)
    assembly.trainer.callbacks.insert(0, Send("on_test_start", signal.SIGTERM))
    assert evaluate(assembly) == expected
    assert signals.received() == signal.SIGTERM


def test_a_signal_before_the_first_update_saves_nothing(assembled):
    assembly = assembled(*RUN)
    assembly.trainer.callbacks.insert(0, Send("setup", signal.SIGUSR2))
    with pytest.raises(signals.Interrupted, match="SIGUSR2 before the first update"):
        fit(assembly)
    assert not checkpoints_in(assembly.folder / "checkpoints")


def test_a_run_that_could_not_be_saved_is_not_asked_of_slurm_again(assembled, monkeypatch):
    assembly = assembled(*RUN)
    assembly.trainer.callbacks.insert(0, Send("on_train_batch_start", signal.SIGUSR1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assembly.trainer, "save_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        fit(assembly)
    assert assembly.checkpointing.stopped_by == 0


def test_a_process_that_has_nothing_to_keep_leaves_at_once_unless_it_is_one_of_many(monkeypatch):
    monkeypatch.setattr(signals, "_deferred", [])
    monkeypatch.setenv("WORLD_SIZE", "2")
    signal.raise_signal(signal.SIGUSR1)
    assert signals.received() == signal.SIGUSR1
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(signals.Interrupted) as stopped:
        signal.raise_signal(signal.SIGUSR2)
    assert stopped.value.code == 128 + signal.SIGUSR2
    assert signals.received() == signal.SIGUSR1
