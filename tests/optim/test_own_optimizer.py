"""The page on an optimizer of one's own holds: its code runs by its command, learns and resumes."""

import pytest
import torch
from omegaconf import MissingMandatoryValue

from tests.pages import block, overrides_of
from trainer.checkpoint.io import checkpoint_path
from trainer.lr import ConfigError
from trainer.run import fit

PAGE = "own_optimizer.md"
SMALL = (
    *("model.hidden=[16]", "data.batch_size=64", "logger=none", "trainer.duration=60", "trainer.validate=30"),
    *("trainer.checkpoint=20", "trainer.keep=0", "optimizer.lr=5e-3"),
)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The overrides of the page's command, with the page's code where Python finds it."""
    return overrides_of(PAGE, "signum.py", tmp_path, monkeypatch)


def test_the_example_is_about_twenty_lines():
    assert len([line for line in block(PAGE, "python").splitlines() if line]) <= 20


def test_the_example_learns_and_resumes_with_the_same_bits(assembled, command):
    whole = assembled(*SMALL, *command, folder="whole")
    fit(whole)
    assert whole.checkpointing.best["scores"]["val/loss"] < 2.0
    resumed = assembled(*SMALL, *command, folder="resumed", resumed=checkpoint_path(whole.folder / "checkpoints", 20))
    fit(resumed)
    weights = [one.module.net.state_dict() for one in (whole, resumed)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    groups = whole.trainer.optimizers[0].param_groups
    assert [(group["momentum"], group["weight_decay"]) for group in groups] == [(0.95, 0.01), (0.95, 0.0)]


def test_its_settings_can_be_scheduled(assembled, command):
    assembly = assembled(*SMALL, *command, "hyper_schedule=weight_decay_tied")
    fit(assembly)
    policy = assembly.module.spec.policy
    assert [group["weight_decay"] for group in assembly.trainer.optimizers[0].param_groups] == policy.values(59)[
        "weight_decay"
    ]


def test_what_it_does_not_know_is_refused_and_so_is_a_module_that_is_not_trusted(assembled, command):
    for words, says in (
        ([*command, "+optimizer.nesterov=true"], r"optimizer\.nesterov is not known to Signum"),
        ([*command, "optimizer.lr=fast"], r"optimizer\.lr='fast'"),
        ([word for word in command if not word.startswith("allow")], r"trust it by allow=\[signum\]"),
        (["optimizer=own"], r"optimizer\._target_"),
    ):
        with pytest.raises((ConfigError, MissingMandatoryValue), match=says):
            assembled(*SMALL, *words)
