"""The table at the start of a run says what is trained, on what and where, and lists nothing that is none."""

import pytest

from trainer.config.run_summary import format_run, summary_of_run

SMALL = ("model.hidden=[8]", "trainer.duration=40", "logger=none")


def table(assembled, *words, folder="run"):
    return format_run(summary_of_run(assembled(*SMALL, *words, folder=folder).resolved))


def test_the_first_rows_name_what_is_trained_and_where(assembled):
    rows = table(assembled)
    assert rows[:8] == [
        ("model", "MLP, 610 parameters"),
        ("data", "Digits, 1257 samples to train, 180 to validate, 360 to test"),
        ("task", "CrossEntropyLoss, accuracy; the best checkpoint by loss"),
        ("optimizer", "AdamW, betas [0.9, 0.999]"),
        ("device", "cpu, 1 process, precision 32-true"),
        ("seed", "0"),
        ("global batch", "32"),
        ("order", "a permutation of 1257 samples, new in each epoch, by data.seed=0"),
    ]
    assert ("warm-up", "W = 2 updates") in rows
    assert ("curve", "warmup linear, schedule cosine") in rows
    assert ("groups", "decay: 592 numbers in 2 tensors, weight decay 0.01") in rows


def test_nothing_that_is_none_is_listed_and_one_is_no_plural(assembled):
    rows = table(assembled, "schedule=constant", "optimizer=sgd", "groups=all", "optimizer.weight_decay=0")
    names = [name for name, _ in rows]
    assert not {"scaling", "warm-up", "module", "gradients", "frozen"} & set(names)
    text = "\n".join(text for _, text in rows)
    assert "none" not in text
    assert not [word for word in ("1 devices", "1 nodes", "1 accumulated", "1 updates") if word in text]


def test_what_there_is_more_than_one_of_is_listed(assembled):
    rows = dict(table(assembled, "trainer.accumulate=4", "data.batch_size=8", "freeze=['layers.1.*']"))
    assert rows["global batch"] == "32 = 8 per device × 4 accumulated"
    assert rows["model"] == "MLP, 610 parameters, 90 of them trained"


@pytest.mark.parametrize(
    ("words", "row"),
    [
        (["trainer.duration=8"], "W = 1 update: 5% of 8 updates is less than one"),
        (["trainer.duration=2"], "W = 1 update: 5% of 2 updates is less than one"),
        (["trainer.duration=20"], "W = 1 update"),
        (["trainer.duration=8", "warmup.duration=1"], "W = 1 update"),
    ],
)
def test_a_share_that_is_less_than_an_update_lasts_one_and_the_table_says_so(assembled, words, row):
    assert dict(table(assembled, *words))["warm-up"] == row


def test_a_run_of_several_micro_batches_and_epochs_counts_them(assembled):
    rows = dict(table(assembled, "trainer.duration=1ep"))
    assert rows["updates"] == "T = 39, 39 an epoch, 1 epoch"
