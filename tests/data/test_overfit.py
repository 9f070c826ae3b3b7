"""`trainer.overfit=N` trains on the first N batches again and again: the same samples, and the same random choices."""

import json

import pytest
import torch

from data.digits import Digits
from data.order import Layout, Order
from data.stream import Loop
from trainer.checkpoint.io import checkpoints_in, read
from trainer.config.run_summary import format_run, summary_of_run
from trainer.log.scalars import scalars
from trainer.lr import ConfigError
from trainer.run import fit

RUN = (
    *("logger=tensorboard", "trainer.duration=120", "trainer.validate=40", "trainer.checkpoint=20", "trainer.keep=0"),
    *("model.dropout=0.2", "optimizer.lr=0.01", "schedule=constant", "task.loss.label_smoothing=0"),
)


def batches(module, count, updates):
    module.follow(lambda: 0, Loop(total=updates, validation_interval=updates, repeated=count))
    return [update for chunk in module.train_dataloader() for update in chunk]


def test_the_first_batches_come_again_in_turn_with_their_seeds():
    module = Digits(batch_size=8)
    module.setup()
    usual, repeated = batches(module, None, 7), batches(module, 3, 7)
    for t, (micro,) in enumerate(repeated):
        expected = usual[t % 3][0]
        assert torch.equal(micro.batch[0], expected.batch[0])
        assert micro.seed == expected.seed


def test_each_rank_repeats_its_own_slices():
    orders = [Order(101, 7, Layout(4, 2, 2, rank)) for rank in range(2)]
    for order in orders:
        first = [order.pick(0, micro).indices.tolist() for micro in range(2)]
        order.repeated = 1
        assert [order.pick(t, micro).indices.tolist() for t in (1, 8) for micro in range(2)] == first * 2
    assert orders[0].pick(5, 0).indices.tolist() != orders[1].pick(5, 0).indices.tolist()


@pytest.fixture
def overfitted(assembled):
    run = assembled(*RUN, "trainer.overfit=1")
    fit(run)
    return run


def test_the_loss_on_one_batch_of_digits_goes_to_zero(overfitted):
    losses = [value for _, value in scalars(overfitted.folder, ("train/loss",))["train/loss"]]
    assert losses[0] > 2
    assert losses[-1] < 1e-3
    assert losses[-1] < losses[20] < losses[0]


def test_a_resume_goes_on_with_the_same_batch_to_the_same_bits(overfitted, assembled):
    middle = next(path for path in checkpoints_in(overfitted.folder / "checkpoints") if path.stem.endswith("60"))
    again = assembled(*RUN, "trainer.overfit=1", folder="again", resumed=middle)
    fit(again)
    ends = [read(checkpoints_in(run.folder / "checkpoints")[-1])["state_dict"] for run in (overfitted, again)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_table_and_the_plan_say_it(assembled):
    for count, text in ((1, "the first batch alone"), (3, "the first 3 batches alone, in turn")):
        summary = summary_of_run(assembled(*RUN, f"trainer.overfit={count}", folder=str(count)).resolved)
        assert dict(format_run(summary))["overfits"].startswith(text)
        assert json.loads(json.dumps(summary))["overfit"] == count
    assert "overfits" not in dict(format_run(summary_of_run(assembled(*RUN, folder="none").resolved)))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trainer.overfit=0"], "trainer.overfit=0 is out of range"),
        (["trainer.overfit=-1"], "trainer.overfit=-1 is out of range"),
        (["trainer.overfit=1.5"], "trainer.overfit=1.5 is"),
        (["trainer.overfit=40"], "trainer.overfit=40 is more than the 39 batches of an epoch: give 1 to 39."),
        (
            ["trainer.overfit=1", "batch_schedule=grow", "batch_schedule.max_batch_size=128"],
            "trainer.overfit=1 repeats batches of one size",
        ),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(assembled, words, line):
    with pytest.raises(ConfigError) as raised:
        assembled(*RUN, "schedule=step", *words)
    assert str(raised.value).startswith(line)
