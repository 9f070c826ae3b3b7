"""`trainer.compile=true`: the net is compiled once, and again only for a batch of another size.

Nothing that changes with the update is a constant of the compiled code: not the rate, nor a scheduled setting.
"""

import pytest
import torch
from torch._dynamo.utils import counters

from trainer.lr import ConfigError
from trainer.run import fit

RUN = (
    *(
        "model.hidden=[8]",
        "trainer.duration=24",
        "trainer.validate=12",
        "data.batch_size=16",
        "data.eval_batch_size=16",
    ),
    *("trainer.compile=true", "logger=none"),
)
CASES = {
    "a rate that changes": (),
    "a plateau": ("plateau=count", "plateau.patience=0", "schedule=constant", "warmup=none"),
    "scheduled settings": ("hyper_schedule=[weight_decay_tied,label_smoothing_linear]", "optimizer=adamw"),
    "a growing batch": ("schedule=step", "batch_schedule=grow", "batch_schedule.max_batch_size=64"),
}


@pytest.mark.slow
@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_it_is_compiled_once(assembled, words):
    torch._dynamo.reset()
    counters.clear()
    run = assembled(*RUN, *words)
    fit(run)
    assert run.module.over
    assert counters["stats"]["unique_graphs"] == 2  # one for training, one for scoring


def test_a_scheduled_dropout_is_refused(assembled):
    with pytest.raises(ConfigError, match="each rate of dropout compiles the net anew"):
        assembled(*RUN, "model.dropout=0.2", "hyper_schedule=dropout_linear")
