"""`trainer.compile=true`: the net is compiled once for training and once for scoring.

Nothing that changes with the update is a constant of the compiled code: not the rate, nor a scheduled setting.
"""

import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.distributed.worlds import ROOT
from trainer.config.prepared_net import MAKE_GRAPHS, compile_net
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
    "a mode": ("trainer.compile=reduce-overhead",),
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


def test_each_mode_is_that_of_torch_and_others_are_refused(assembled, monkeypatch):
    modes = []
    monkeypatch.setattr(nn.Module, "compile", lambda net, mode: modes.append(mode))
    for word in ("true", "default", *MAKE_GRAPHS, "max-autotune-no-cudagraphs"):
        assembled(*RUN, f"trainer.compile={word}")
    assert modes == [None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
    for word in ("1", "fast", "null"):
        with pytest.raises(ConfigError, match=r"trainer\.compile=.* is not known: choose one of False, True, default"):
            assembled(*RUN, f"trainer.compile={word}")


def test_outputs_of_a_mode_that_makes_graphs_are_copies(monkeypatch):
    """As in such a mode on a GPU, each call writes to the memory of the one before."""
    memory = torch.zeros(2)
    monkeypatch.setattr(torch, "compile", lambda call, mode: lambda x: {"out": memory.copy_(x), "count": 1})
    net = nn.Identity()
    compile_net(net, "reduce-overhead")
    first, second = net(torch.ones(2)), net(torch.zeros(2))
    assert (first["out"].tolist(), second["out"].tolist(), first["count"]) == ([1, 1], [0, 0], 1)
