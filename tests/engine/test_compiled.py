"""`trainer.compile=true`: the net is compiled once for training and once for scoring.

Nothing that changes with the update is a constant of the compiled code: not the rate, nor a scheduled setting.
"""

import subprocess
import sys

import pytest

from tests.distributed.worlds import ROOT
from trainer.lr import ConfigError

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


WORK = """
import sys
from pathlib import Path

from tests.engine import equality
from trainer.run import fit

run = equality.assembled(Path(sys.argv[1]), 1, 1, *sys.argv[2:])
fit(run)
from torch._dynamo.utils import counters
print(run.module.over, counters["stats"]["unique_graphs"])
"""


@pytest.mark.slow
@pytest.mark.sample(1)
@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_it_is_compiled_once(tmp_path, words):
    """In a process of its own, which has compiled nothing before."""
    command = [sys.executable, "-c", WORK, str(tmp_path / "run"), *RUN, *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said.splitlines()[-1] == "True 2"  # one graph for training, one for scoring


def test_a_scheduled_dropout_is_refused(assembled):
    with pytest.raises(ConfigError, match="each rate of dropout compiles the net anew"):
        assembled(*RUN, "model.dropout=0.2", "hyper_schedule=dropout_linear")
